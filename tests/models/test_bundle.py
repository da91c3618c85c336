import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny

from diffgen import config
from diffgen.errors import UserError
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.models.autoencoder import LatentCodec
from diffgen.models.conv_autoencoder import ConvAutoencoder
from diffgen.models.mask_codec import GreyLatents, LabelBits, build_mask_codec
from diffgen.sampling.solvers import noise_schedule
from tests import latent_masks
from tests.conftest import TINY


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


def test_masks_as_latents_round_trip(labels: Labels, tmp_path: Path) -> None:
    """Their own autoencoder is a component; without weights, the shape of the canvas is known."""
    folder = latent_masks.make(tmp_path / "bundle", labels)
    loaded = bundle.load(folder)
    again = bundle.load(bundle.unpack(bundle.pack(folder), tmp_path / "copy"))
    assert again.facts == loaded.facts
    assert (loaded.facts.mask_encoding, loaded.facts.mask_factor, loaded.facts.mask_channels) == (
        "latents",
        2,
        3,
    )
    assert (loaded.facts.mask_patch, loaded.facts.mask_patch_pixels) == (8, 16)
    assert json.loads((folder / "model_index.json").read_text())["mask_autoencoder"][1] == "LinearAutoencoder"
    for label_map in latent_masks.blobs(3, 16, 5):
        canvas = loaded.mask_codec.encode(label_map)
        assert np.array_equal(canvas, again.mask_codec.encode(label_map))
        assert np.array_equal(loaded.mask_codec.decode(canvas), again.mask_codec.decode(canvas))
    blank = bundle.load(folder, weights=False).mask_codec
    assert (blank.channels, blank.factor) == (3, 2)


def test_shared_weights_are_stored_once(labels: Labels, tmp_path: Path) -> None:
    """A pretrained autoencoder serves images and label maps, at two scalings."""
    torch.manual_seed(0)
    model = AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1), latent_channels=4,
    )  # fmt: skip
    tree = {
        "autoencoder": {"kind": "tiny", "source": "somewhere", "factor": 2, "channels": 4},
        "mask_model": {"encoding": "latents", "factor": 2, "channels": 4},
    }
    chosen, codec = config.validate(config.merge(TINY, tree)), LatentCodec(model)
    masks = build_mask_codec(chosen, codec, latent_masks.blobs(8, 16, 5), labels)
    schedule = dict(noise_schedule(1000, "squaredcos_cap_v2", "epsilon").config)
    made = bundle.Bundle(
        bundle.generator_config(chosen, codec, masks), labels, schedule, codec, mask_codec=masks
    )
    bundle.save(made, tmp_path, chosen, "")
    assert not (tmp_path / "mask_autoencoder").exists()
    loaded = bundle.load(tmp_path)
    assert isinstance(loaded.mask_codec, GreyLatents)
    assert loaded.mask_codec.autoencoder.model is loaded.codec.model
    assert loaded.codec.mean == [0.0] * 4
    (label_map,) = latent_masks.blobs(1, 16, 5)
    assert np.array_equal(loaded.mask_codec.encode(label_map), masks.encode(label_map))


def test_a_conv_autoencoder_round_trips(labels: Labels, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ConvAutoencoder(latent_channels=4, widths=(8, 8), encoder_blocks=(1, 1), decoder_blocks=(1, 1))
    chosen = config.validate(
        config.merge(TINY, {"autoencoder": {"kind": "conv", "factor": 8, "channels": 4}})
    )
    codec = LatentCodec(model, [0.5] * 4, [2.0] * 4)
    schedule = dict(noise_schedule(1000, "squaredcos_cap_v2", "epsilon").config)
    bundle.save(
        bundle.Bundle(bundle.generator_config(chosen, codec), labels, schedule, codec), tmp_path, chosen, ""
    )
    loaded = bundle.load(tmp_path).codec
    assert (loaded.factor, loaded.channels, loaded.mean) == (8, 4, [0.5] * 4)
    latents = torch.randn(1, 4, 3, 5)
    assert torch.equal(loaded.decode(latents), codec.decode(latents))


def test_bundles_from_before_masks_had_encodings(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "old")
    index = json.loads((tmp_path / "old" / "model_index.json").read_text())
    kept = {
        name: value
        for name, value in index.items()
        if name not in {"mask_encoding", "mask_factor", "mask_channels"} and "mask_latents" not in name
    }
    assert len(kept) == len(index) - 5
    (tmp_path / "old" / "model_index.json").write_text(json.dumps(kept))
    old = bundle.load(tmp_path / "old")
    assert old.facts == bundle.load(tiny_bundle).facts
    assert isinstance(old.mask_codec, LabelBits)


def test_wide_patches_are_a_fact(tiny_bundle: Path) -> None:
    codec = bundle.load(tiny_bundle).codec
    wide = config.validate(config.merge(TINY, {"image_model": {"context": "wide", "wide_below": -1.5}}))
    assert bundle.generator_config(wide, codec).patch_by_log_snr == ((-1.5, 16), (None, 8))


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
