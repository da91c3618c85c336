from pathlib import Path

import numpy as np
import pytest
import torch

from diffgen import config
from diffgen.data.stream import PatchTable
from diffgen.errors import UserError
from diffgen.labels import Labels
from diffgen.training.resident import ResidentCrops
from diffgen.training.stored import StoredCrops
from tests.data import prepared
from tests.training.test_latent_shards import kl_codec, linear_codec
from tests.training.test_stored import encode


@pytest.fixture(scope="module")
def data(tiny: config.Settings, labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared.make(tmp_path_factory.mktemp("data"), tiny, labels)


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("make", [kl_codec, linear_codec])
def test_crops_are_those_that_are_read(data: Path, tmp_path: Path, make, sample: bool) -> None:  # type: ignore[no-untyped-def]
    patches = PatchTable(data, "image", "train")
    stored = StoredCrops(encode(data, tmp_path / "latents", make(), 8), patches, sample)
    resident = ResidentCrops(stored, torch.device("cpu"))
    label = min(patches.by_class)
    chosen = [(n, None) for n in range(len(patches))] + [(int(patches.by_class[label][0]), label)] * 8
    drawn = [
        [crops.crop(n, 5, np.random.default_rng(seed), holding) for seed, (n, holding) in enumerate(chosen)]
        for crops in (stored, resident)
    ]
    for (_, read), (_, kept) in zip(*drawn, strict=True):
        np.testing.assert_array_equal(read, kept)
    read, kept = (c.encode([crop for crop, _ in d]) for c, d in zip((stored, resident), drawn, strict=True))
    assert kept.shape == read.shape
    torch.testing.assert_close(kept, read, rtol=1e-6 if sample else 0, atol=1e-6 if sample else 0)


def test_a_crop_larger_than_its_patch_is_one_line(data: Path, tmp_path: Path) -> None:
    stored = StoredCrops(
        encode(data, tmp_path / "latents", linear_codec(), 1), PatchTable(data, "image"), False
    )
    with pytest.raises(UserError, match="latent pixels, a crop 999"):
        ResidentCrops(stored, torch.device("cpu")).crop(0, 999, np.random.default_rng(0))


def test_live_latents_cannot_be_resident() -> None:
    with pytest.raises(UserError, match=r"training\.resident needs autoencoder\.latents stored"):
        config.validate({"training": {"resident": True}, "autoencoder": {"latents": "live"}})
