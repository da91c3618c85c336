from pathlib import Path

import numpy as np
import pytest
import torch

from diffgen import config
from diffgen.data.stream import PatchTable
from diffgen.errors import UserError
from diffgen.labels import Labels
from diffgen.models.autoencoder import LatentCodec, LinearAutoencoder
from diffgen.models.mask_codec import LabelBits, MaskCodec, build_mask_codec
from diffgen.sampling.seeds import Purpose, generator
from diffgen.training.algorithm import NoiseLevels
from diffgen.training.mask_source import MaskSource
from tests import latent_masks
from tests.data import prepared

CLASSES = 5

LEVELS = NoiseLevels(np.linspace(9, -9, 1000))


@pytest.fixture(scope="module")
def folder(labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mask patches of 16 mask pixels."""
    stored = config.merge(latent_masks.TINY, {"mask_model": {"patch": 16, "attention": [8]}})
    return prepared.make(tmp_path_factory.mktemp("data"), config.validate(stored), labels)


@pytest.fixture(scope="module", params=["bits", "latents"])
def codec(request: pytest.FixtureRequest, labels: Labels) -> MaskCodec:
    if request.param == "bits":
        return LabelBits(CLASSES)
    images = LatentCodec(LinearAutoencoder(4, 4))
    maps = latent_masks.blobs(8, 16, CLASSES)
    return build_mask_codec(latent_masks.settings(), images, maps, labels)


@pytest.fixture
def source(folder: Path, codec: MaskCodec) -> MaskSource:
    return MaskSource(PatchTable(folder, "mask"), codec, 0.5, LEVELS, seed=1)


def test_label_maps_under_their_context(source: MaskSource, codec: MaskCodec) -> None:
    batch = source.batch(0, range(200))
    side = 16 // codec.factor
    assert source.sides(0, 3) == [side] * 3
    assert batch.clean.shape == batch.noise.shape == (200, codec.channels, side, side)
    assert batch.clean.dtype == batch.noise.dtype == torch.float32
    assert set(batch.condition.tolist()) == {0, 1, 2}
    assert float((batch.condition == 0).float().mean()) == pytest.approx(0.5, abs=0.12)
    for clean, condition in zip(batch.clean[:20], batch.condition[:20], strict=True):
        label_map = codec.decode(clean.numpy())
        number, _ = find(source.patches, label_map)
        assert int(condition) in {0, 1 + source.patches.context(number)}


def find(patches: PatchTable, label_map: np.ndarray) -> tuple[int, float]:
    """The patch that a label map is most alike in one of its turns, and how much it is."""
    turns = [np.rot90(label_map, k) for k in range(4)]
    alike = [
        max(float(np.mean(patches.label_map(n) == t)) for one in turns for t in (one, one[::-1]))
        for n in range(len(patches))
    ]
    assert max(alike) > 0.9
    return int(np.argmax(alike)), max(alike)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_share_of_conditional_samples(folder: Path, codec: MaskCodec, p: float) -> None:
    batch = MaskSource(PatchTable(folder, "mask"), codec, p, LEVELS, seed=1).batch(0, range(50))
    assert bool((batch.condition > 0).all()) == bool(p)
    assert bool((batch.condition > 0).any()) == bool(p)


def test_order_does_not_depend_on_workers_or_micro_batches(source: MaskSource) -> None:
    whole = source.batch(11, range(8))
    for part in ([0], [5, 2], list(range(1, 8, 2))):
        share = source.batch(11, part)
        for name in ("clean", "condition", "timestep", "noise"):
            assert torch.equal(getattr(share, name), getattr(whole, name)[part]), "bit for bit"
    assert not torch.equal(source.batch(12, range(8)).noise, whole.noise)


def test_the_time_step_is_the_first_draw(source: MaskSource) -> None:
    """As for the image model, so that the steps of a batch are known before it is read."""
    expected = [int(generator(1, 4, Purpose.TRAINING, j).integers(1000)) for j in range(6)]
    assert source.batch(4, range(6)).timestep.tolist() == expected


def test_each_map_and_turn_is_encoded_once(folder: Path, labels: Labels) -> None:
    """An autoencoder takes long: what it made is kept, and is what it would make again."""
    images = LatentCodec(LinearAutoencoder(4, 4))
    maps = latent_masks.blobs(8, 16, CLASSES)
    codec = build_mask_codec(latent_masks.settings(), images, maps, labels)
    source = MaskSource(PatchTable(folder, "mask"), codec, 0.5, LEVELS, seed=1)
    calls, encode = [], codec.encode
    codec.encode = lambda label_map: calls.append(0) or encode(label_map)  # type: ignore[method-assign, func-returns-value]
    first = source.batch(0, range(400))
    assert 0 < len(calls) <= 8 * len(source.patches)
    assert torch.equal(source.batch(0, range(400)).clean, first.clean)
    assert len(calls) <= 8 * len(source.patches)


def test_no_label_maps_are_named(folder: Path) -> None:
    with pytest.raises(UserError, match="no label maps for the mask model"):
        MaskSource(PatchTable(folder, "mask", "no such split"), LabelBits(CLASSES), 0.5, LEVELS, 0)
