import numpy as np
import pytest

from diffgen import config
from diffgen.data.plan import layout_of, plan_patches
from diffgen.data.report import LeftOuts
from diffgen.data.scan import Scan
from diffgen.data.sources import Source


@pytest.mark.parametrize(("encoding", "pixels"), [("bits", 16), ("latents", 16 * 8)])
def test_mask_patches_are_stored_in_mask_pixels(encoding: str, pixels: int) -> None:
    """A patch of 16 latent pixels of a label map is one of 128 mask pixels (paper, Table 6)."""
    mask_model = {"patch": 16, "attention": [8], "encoding": encoding, "factor": 8}
    layout = layout_of(config.validate({"mask_model": mask_model}))
    assert layout.mask_side == pixels * 16
    assert layout.mask_step == pixels // 4 * 16


@pytest.mark.parametrize("context", ["fixed", "wide"])
@pytest.mark.parametrize(("width", "height"), [(150, 400), (500, 900), (300, 300), (300, 2000)])
def test_every_crop_of_training_fits_in_every_image_patch(context: str, width: int, height: int) -> None:
    """With wide crops a test part of less than two patches is none: training would draw from it in vain."""
    settings = config.load(None, ["image_model.patch=16", f"image_model.context={context}"])
    scan = Scan(Source("a", "a", "", ""), (0.5, 0.5), False, width, height, np.ones((8, 8), bool))
    plans = plan_patches([scan], settings, False, LeftOuts(), [])
    patches = [patch for plan in plans for patch in plan.patches]
    assert all(min(patch.width, patch.height) >= settings.widest_patch_px for patch in patches)
    assert settings.widest_patch_px == (128 if context == "wide" else 64)
    assert any(patch.split == "test" for patch in patches) == (0.1 * height >= settings.widest_patch_px)
