"""Agreement of images with their masks, from counts alone."""

import numpy as np
import pytest

from diffgen.errors import UserError
from diffgen.evaluation.bootstrap import as_json
from diffgen.evaluation.downstream_figures import agreement, count
from diffgen.labels import Labels
from tests.evaluation.painted import NAMES

LABELS = Labels(NAMES)
GROUPS = np.repeat(np.arange(10), 3)


def counts(rng: np.random.Generator, wrong: float) -> np.ndarray:
    truth = rng.integers(1, 3, (30, 16, 16), np.uint8)
    predicted = np.where(rng.random(truth.shape) < wrong, 3 - truth, truth).astype(np.uint8)
    return np.stack([count(*pair, 3) for pair in zip(truth, predicted, strict=True)])


def test_dice_is_pooled_over_regions_and_averaged_over_segmenters(rng: np.random.Generator) -> None:
    by_seed = [counts(rng, wrong) for wrong in (0.0, 0.1, 0.3)]
    found = agreement(by_seed, GROUPS, LABELS, "set")
    for k in (1, 2):
        naive = np.mean(
            [2 * tp / (2 * tp + fp + fn) for tp, fp, fn in (one.sum(axis=0)[k] for one in by_seed)]
        )
        figure = found[NAMES[k]]
        assert figure.value == pytest.approx(naive)
        assert figure.low < figure.value < figure.high
    assert found["mean"].value == pytest.approx((found["nuclei"].value + found["stroma"].value) / 2)


def test_perfect_masks_agree_and_wrong_ones_do_not(rng: np.random.Generator) -> None:
    perfect = agreement([counts(rng, 0.0)], GROUPS, LABELS, "set")
    chance = agreement([counts(rng, 0.5)], GROUPS, LABELS, "set")
    assert perfect["mean"].value == perfect["mean"].low == perfect["mean"].high == 1
    assert chance["mean"].value == pytest.approx(0.5, abs=0.02)
    assert as_json(perfect)["nuclei"] == [1, 1, 1]


def test_one_source_gives_no_interval(rng: np.random.Generator) -> None:
    with pytest.raises(UserError, match="set: all samples are of one source"):
        agreement([counts(rng, 0.1)], np.zeros(30, np.intp), LABELS, "set")
