import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from diffgen import config
from diffgen.errors import UserError
from diffgen.models import bundle


def test_round_trip(tiny_bundle: Path) -> None:
    loaded = bundle.load(tiny_bundle)
    again = bundle.load(bundle.unpack(bundle.pack(tiny_bundle), tiny_bundle.parent / "copy"))
    assert again.facts == loaded.facts
    assert again.labels == loaded.labels
    assert again.image_unet is not None
    assert loaded.image_unet is not None
    for name, tensor in loaded.image_unet.state_dict().items():
        assert torch.equal(tensor, again.image_unet.state_dict()[name])
    assert loaded.facts.patch_by_log_snr == ((None, 8),)
    assert loaded.facts.mask_pixel_px == 16


def test_a_bundle_does_not_know_where_it_lay(
    tiny_bundle: Path, tiny: config.Settings, tmp_path: Path
) -> None:
    """Saved again from another folder it has the same digest, and no path in it."""
    bundle.save(bundle.load(tiny_bundle), tmp_path / "again", tiny, "")
    assert bundle.digest(bundle.pack(tmp_path / "again")) == bundle.digest(bundle.pack(tiny_bundle))
    assert not any(str(tiny_bundle).encode() in data for data in bundle.pack(tmp_path / "again").values())


def test_diffusers_layout(tiny_bundle: Path) -> None:
    index = json.loads((tiny_bundle / "model_index.json").read_text())
    for component in ("image_unet", "mask_unet", "autoencoder", "scheduler"):
        assert len(index[component]) == 2
        assert list((tiny_bundle / component).glob("*config.json"))
    files = {path.suffix for path in bundle.files(tiny_bundle)}
    assert files <= {".json", ".safetensors", ".yaml", ".md"}


def test_digest_sees_every_byte_but_not_the_card(tiny_bundle: Path) -> None:
    packed = bundle.pack(tiny_bundle)
    digest = bundle.digest(packed)
    assert bundle.digest(packed | {"README.md": b"another card"}) == digest
    for name in packed:
        if name not in {"README.md", "settings.yaml"}:
            assert bundle.digest(packed | {name: packed[name] + b" "}) != digest


def test_nothing_is_unpickled(tiny_bundle: Path, tmp_path: Path) -> None:
    """A pickle in place of the safetensors is refused, and does not run (promise 8)."""
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    for weights in (folder / "image_unet").glob("*.safetensors"):
        weights.unlink()
    mark = tmp_path / "it ran"
    evil = pickle.dumps(Evil(str(mark)))
    (folder / "image_unet" / "diffusion_pytorch_model.bin").write_bytes(evil)
    with pytest.raises(UserError, match="image_unet"):
        bundle.load(folder)
    assert not mark.exists()


class Evil:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return open, (self.path, "w")


@pytest.mark.parametrize("text", [None, "not json", "{}"])
def test_what_is_no_bundle_is_named(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "model_index.json").write_text(text)
    with pytest.raises(UserError, match="is not a bundle"):
        bundle.load(tmp_path)
