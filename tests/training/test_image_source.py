from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from diffgen import config
from diffgen.appearance import NAMES, Appearance
from diffgen.data.stream import PatchTable
from diffgen.errors import UserError
from diffgen.labels import Labels
from diffgen.models.autoencoder import LatentCodec, LinearAutoencoder
from diffgen.sampling.solvers import log_snr, noise_schedule
from diffgen.training import image_source
from diffgen.training.algorithm import NoiseLevels, share
from diffgen.training.image_source import ImageSource, LiveCrops
from tests.data import prepared

LEVELS = log_snr(noise_schedule(1000, "squaredcos_cap_v2", "epsilon").alphas_cumprod.numpy())


@pytest.fixture(scope="module")
def folder(tiny: config.Settings, labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared.make(tmp_path_factory.mktemp("data"), tiny, labels)


@pytest.fixture(scope="module")
def codec() -> LatentCodec:
    return LatentCodec(LinearAutoencoder.fit(torch.rand(1, 3, 32, 32), 4, 4))


def source(
    folder: Path, codec: LatentCodec, p: float = 0.5, balance: str = "class", **model: object
) -> ImageSource:
    settings = config.ImageModel.model_validate({"patch": 8, "attention": [4], **model})
    part = config.ModelTraining.model_validate({"p_conditional": p, "balance": balance})
    crops = LiveCrops(PatchTable(folder, "image"), codec)
    return ImageSource(crops, settings, part, codec.channels, NoiseLevels(LEVELS), seed=3)


def test_shapes(folder: Path, codec: LatentCodec) -> None:
    batch = source(folder, codec).batch(0, range(5))
    assert batch.clean.shape == batch.noise.shape == (5, 4, 8, 8)
    assert batch.condition.shape == (5, 8, 8)
    assert batch.timestep.shape == (5,)


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("micro_batch", [None, 2])
def test_data_do_not_depend_on_workers_and_micro_batches(
    folder: Path, codec: LatentCodec, workers: int, micro_batch: int | None
) -> None:
    made = source(folder, codec, context="wide")
    sides = made.sides(11, 8)
    assert len(set(sides)) == 2, "a step with crops of both sides"
    alone = [made.batch(11, [j]) for j in range(8)]
    for rank in range(workers):
        for piece in share(sides, rank, workers, micro_batch):
            batch = made.batch(11, piece)
            for row, j in enumerate(piece):
                assert batch.clean.shape[-1] == sides[j]
                for name in ("clean", "condition", "timestep", "noise"):
                    torch.testing.assert_close(getattr(batch, name)[row], getattr(alone[j], name)[0])
    assert not torch.equal(made.batch(12, [0]).noise[0, :, :8, :8], alone[0].noise[0, :, :8, :8])


def test_crops_are_wide_at_high_noise_and_there_alone(folder: Path, codec: LatentCodec) -> None:
    made = source(folder, codec, context="wide", wide_below=-2.0, p_wide=0.75)
    counts = {False: [0, 0], True: [0, 0]}
    for step in range(20):
        for j, side in enumerate(made.sides(step, 64)):
            noisy = bool(LEVELS[made._begin(step, j)[0]] < -2)
            counts[noisy][side == 16] += 1
    assert counts[False][1] == 0
    assert counts[True][1] / sum(counts[True]) == pytest.approx(0.75, abs=0.08)
    assert set(source(folder, codec).sides(0, 64)) == {8}, "with a fixed context none is"


@pytest.mark.parametrize(("p", "expected"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_eq_9_mixes_labelled_and_unlabelled(
    folder: Path, codec: LatentCodec, p: float, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With p_conditional from the labelled data with its label, else ∅ from the unlabelled data."""
    monkeypatch.setattr(image_source, "TRIES", 1)  # one reading a sample, so that readings can be counted
    made = source(folder, codec, p)
    numbers: list[int] = []
    read = made.patches.picture
    made.patches.picture = lambda number: numbers.append(number) or read(number)  # type: ignore[method-assign, func-returns-value]
    maps = made.batch(0, range(300)).condition
    conditional = maps.flatten(1).any(1)
    assert float(conditional.float().mean()) == pytest.approx(expected, abs=0.1)
    labelled = np.isin(numbers, made.patches.labelled)
    assert labelled.mean() == pytest.approx(expected, abs=0.1)
    assert not conditional[~torch.from_numpy(labelled)].any()


def test_per_label_shows_one_label_and_joint_all(folder: Path, codec: LatentCodec) -> None:
    one = source(folder, codec, 1.0).batch(0, range(40)).condition
    assert all(len(set(m.unique().tolist()) - {0}) <= 1 for m in one)
    joint = source(folder, codec, 1.0, conditioning="joint").batch(0, range(40)).condition
    assert any(len(set(m.unique().tolist()) - {0}) > 1 for m in joint)


def drawn(made: ImageSource) -> np.ndarray:
    pairs = [made._labelled(np.random.default_rng(k)) for k in range(2000)]
    for number, label in pairs:
        assert made.patches.rows[number]["shares"][label] > 0, "a patch that has the class"
    return np.bincount([label for _, label in pairs], minlength=5) / len(pairs)


def test_classes_are_drawn_by_turns_or_by_their_area(folder: Path, codec: LatentCodec) -> None:
    by_class = source(folder, codec, 1.0)
    shares = drawn(by_class)[by_class.classes]
    assert shares.min() > 0.8 / len(by_class.classes)
    by_area = source(folder, codec, 1.0, balance="area")
    rows = [by_area.patches.rows[n] for n in by_area.patches.labelled]
    areas = np.sum([np.array(r["shares"]) * r["height"] * r["width"] for r in rows], axis=0)
    areas[0] = 0
    np.testing.assert_allclose(drawn(by_area), areas / areas.sum(), atol=0.04)


def test_a_class_that_is_drawn_is_in_the_crop(folder: Path, codec: LatentCodec) -> None:
    maps = source(folder, codec, 1.0).batch(1, range(200)).condition
    assert maps.flatten(1).any(1).all()


def test_an_empty_source_is_named(folder: Path, codec: LatentCodec) -> None:
    crops = LiveCrops(PatchTable(folder, "image", "no such split"), codec)
    with pytest.raises(UserError, match="no image patches"):
        ImageSource(crops, config.ImageModel(), config.ModelTraining(), 4, NoiseLevels(LEVELS), 0)


def test_latents_are_drawn_where_the_autoencoder_has_a_distribution(folder: Path) -> None:
    torch.manual_seed(0)
    kl = AutoencoderKL(
        block_out_channels=(4, 4, 4), norm_num_groups=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
    )  # fmt: skip
    codec, model = LatentCodec(kl), config.ImageModel(patch=8, attention=(4,))

    def of(sample: bool) -> ImageSource:
        crops = LiveCrops(PatchTable(folder, "image"), codec, sample)
        return ImageSource(crops, model, config.ModelTraining(), 4, NoiseLevels(LEVELS), seed=3)

    mode, drawn_once, again = (of(sample).batch(0, range(64)).clean for sample in (False, True, True))
    assert torch.equal(drawn_once, again), "a function of the seed"
    picture, _ = LiveCrops(PatchTable(folder, "image"), codec).crop(0, 8, np.random.default_rng(0))
    deviation = codec.moments(torch.from_numpy(image_source.from_picture(picture[0]))[None])[:, 4:].exp()
    spread = (drawn_once - mode).std()
    assert float(spread) == pytest.approx(float(deviation.mean()), rel=0.5)


def test_small_crops_take_their_share(folder: Path, codec: LatentCodec) -> None:
    made = source(folder, codec, small_patch=4, attention=[4])
    sides = made.sides(0, 1000)
    assert set(sides) == {4, 8}
    assert sides.count(4) == pytest.approx(330, abs=50)
    small = [j for j, side in enumerate(sides) if side == 4][:3]
    assert made.batch(0, small).clean.shape == (3, 4, 4, 4)


def test_context_and_appearance_are_those_of_the_patch_or_null(folder: Path, codec: LatentCodec) -> None:
    patches = PatchTable(folder, "image")
    contexts = np.array([1 + patches.context(number) for number in range(len(patches))])
    table = Appearance.fit(patches.appearances, contexts)
    model = config.ImageModel.model_validate(
        {"patch": 8, "attention": [4], "conditions": ["context", "appearance"]}
    )
    crops = LiveCrops(patches, codec)
    made = ImageSource(crops, model, config.ModelTraining(p_drop=0.25), 4, NoiseLevels(LEVELS), 3, table)
    batch = made.batch(0, range(400))
    assert batch.context is not None
    assert batch.appearance is not None
    assert batch.appearance.shape == (400, len(NAMES))
    dropped = batch.appearance.isnan().any(dim=1)
    assert float(dropped.float().mean()) == pytest.approx(0.25, abs=0.07)
    assert float((batch.context == 0).float().mean()) == pytest.approx(0.25, abs=0.07)
    known = {tuple(row) for row in table.vectors.tolist()}
    assert all(tuple(row) in known for row in batch.appearance[~dropped].tolist())
    assert source(folder, codec).batch(0, range(3)).given[1:] == ()


def test_data_of_before_is_told_to_be_prepared_anew(folder: Path) -> None:
    patches = PatchTable(folder, "image")
    patches.rows[0].pop("appearance")
    with pytest.raises(UserError, match="prepare it anew"):
        _ = patches.appearances
