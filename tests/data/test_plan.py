import pytest

from diffgen import config
from diffgen.data.plan import layout_of


@pytest.mark.parametrize(("encoding", "pixels"), [("bits", 16), ("latents", 16 * 8)])
def test_mask_patches_are_stored_in_mask_pixels(encoding: str, pixels: int) -> None:
    """A patch of 16 latent pixels of a label map is one of 128 mask pixels (paper, Table 6)."""
    mask_model = {"patch": 16, "attention": [8], "encoding": encoding, "factor": 8}
    layout = layout_of(config.validate({"mask_model": mask_model}))
    assert layout.mask_side == pixels * 16
    assert layout.mask_step == pixels // 4 * 16
