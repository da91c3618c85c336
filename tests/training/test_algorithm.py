from pathlib import Path

import numpy as np
import pytest
import torch

from diffgen import config
from diffgen.data.stream import Patches
from diffgen.errors import UserError
from diffgen.labels import Labels
from diffgen.models.autoencoder import LatentCodec, LinearAutoencoder
from diffgen.sampling.masks import from_bits
from diffgen.sampling.solvers import noise_schedule
from diffgen.training import algorithm
from diffgen.training.algorithm import Batch, ImageSource, MaskSource, loss
from tests.data import prepared


@pytest.fixture(scope="module")
def folder(tiny: config.Settings, labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared.make(tmp_path_factory.mktemp("data"), tiny, labels)


@pytest.fixture(scope="module")
def codec() -> LatentCodec:
    return LatentCodec(LinearAutoencoder.fit(torch.rand(1, 3, 32, 32), 4, 4))


def image_source(folder: Path, codec: LatentCodec, p: float = 0.5, how: str = "per_label") -> ImageSource:
    return ImageSource(Patches(folder, "image"), codec, 8, p, how, 1000, seed=3)


def test_shapes(folder: Path, codec: LatentCodec) -> None:
    batch = image_source(folder, codec).batch(0, range(5))
    assert batch.clean.shape == batch.noise.shape == (5, 4, 8, 8)
    assert batch.condition.shape == (5, 8, 8)
    assert batch.timestep.shape == (5,)


@pytest.mark.parametrize("workers", [2, 4])
def test_data_order_does_not_depend_on_the_workers(folder: Path, codec: LatentCodec, workers: int) -> None:
    source = image_source(folder, codec)
    whole = source.batch(11, range(8))
    for rank in range(workers):
        share = source.batch(11, range(rank, 8, workers))
        for name in ("clean", "condition", "timestep", "noise"):
            torch.testing.assert_close(getattr(share, name), getattr(whole, name)[rank::workers])
    assert not torch.equal(source.batch(12, range(8)).noise, whole.noise)


@pytest.mark.parametrize(("p", "share"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_eq_9_mixes_labelled_and_unlabelled(
    folder: Path, codec: LatentCodec, p: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With p_conditional from the labelled data with its label, else ∅ from the unlabelled data."""
    monkeypatch.setattr(algorithm, "TRIES", 1)  # one reading a sample, so that readings can be counted
    source = image_source(folder, codec, p)
    numbers: list[int] = []
    read = source.patches.picture
    source.patches.picture = lambda number: numbers.append(number) or read(number)  # type: ignore[method-assign, func-returns-value]
    maps = source.batch(0, range(300)).condition
    conditional = maps.flatten(1).any(1)
    assert float(conditional.float().mean()) == pytest.approx(share, abs=0.1)
    labelled = np.isin(numbers, source.patches.labelled)
    assert np.array_equal(labelled, labelled & (np.array(numbers) < 4))
    assert labelled.mean() == pytest.approx(share, abs=0.1)
    assert not conditional[~torch.from_numpy(labelled)].any()


def test_per_label_shows_one_label_and_joint_all(folder: Path, codec: LatentCodec) -> None:
    one = image_source(folder, codec, 1.0).batch(0, range(40)).condition
    assert all(len(set(m.unique().tolist()) - {0}) <= 1 for m in one)
    joint = image_source(folder, codec, 1.0, "joint").batch(0, range(40)).condition
    assert any(len(set(m.unique().tolist()) - {0}) > 1 for m in joint)


def test_classes_are_drawn_by_turns(folder: Path, codec: LatentCodec) -> None:
    source = image_source(folder, codec, 1.0)
    maps = source.batch(1, range(400)).condition
    assert maps.flatten(1).any(1).all(), "a class that is drawn is in the crop"
    drawn = [int(m.max()) for m in maps]
    counts = np.bincount(drawn, minlength=5)[source.classes]
    assert counts.min() > 0.5 * counts.mean()


def test_mask_source_gives_bits_and_contexts(folder: Path) -> None:
    source = MaskSource(Patches(folder, "mask"), 5, 0.5, 1000, seed=1)
    batch = source.batch(0, range(200))
    assert set(batch.clean.unique().tolist()) == {-1.0, 1.0}
    assert set(batch.condition.tolist()) == {0, 1, 2}
    assert float((batch.condition == 0).float().mean()) == pytest.approx(0.5, abs=0.12)
    labels = from_bits(batch.clean[0].numpy(), 5)
    assert labels.min() >= 1
    assert labels.max() <= 4


def test_empty_sources_are_named(folder: Path, codec: LatentCodec) -> None:
    nothing = Patches(folder, "mask", "no such split")
    with pytest.raises(UserError, match="no label maps for the mask model"):
        MaskSource(nothing, 5, 0.5, 1000, 0)
    with pytest.raises(UserError, match="no image patches"):
        ImageSource(nothing, codec, 8, 0.5, "joint", 1000, 0)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_loss_is_zero_for_the_right_answer(prediction: str) -> None:
    schedule = noise_schedule(1000, "squaredcos_cap_v2", prediction)
    batch = Batch(torch.randn(2, 1, 4, 4), torch.zeros(2), torch.tensor([100, 900]), torch.randn(2, 1, 4, 4))
    gamma = schedule.alphas_cumprod[batch.timestep].sqrt().view(-1, 1, 1, 1)
    sigma = (1 - gamma**2).sqrt()

    def oracle(noisy: torch.Tensor, timestep: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        del timestep, condition
        torch.testing.assert_close(noisy, gamma * batch.clean + sigma * batch.noise)
        v = gamma * batch.noise - sigma * batch.clean
        return {"epsilon": batch.noise, "sample": batch.clean, "v_prediction": v}[prediction]

    assert float(loss(oracle, schedule, batch)) < 1e-9
    assert float(loss(lambda *_: torch.zeros(2, 1, 4, 4), schedule, batch)) > 0.1
