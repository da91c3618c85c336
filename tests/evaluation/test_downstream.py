"""Use: figures against scikit-learn and by hand, what is trained on what, and what cannot be learned."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from diffgen.config import Downstream
from diffgen.errors import UserError
from diffgen.evaluation import downstream, downstream_figures
from diffgen.evaluation.bootstrap import Estimate, MeanStd
from diffgen.evaluation.sections.downstream import verdict
from diffgen.labels import Labels
from tests.evaluation.painted import NAMES, painted

LABELS = Labels(NAMES)
SETTINGS = Downstream(positive="nuclei")


def maps(rng: np.random.Generator, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Truth with unknown pixels, and predictions without."""
    return rng.integers(0, classes, (6, 20, 20), np.uint8), rng.integers(1, classes, (6, 20, 20), np.uint8)


def test_dice_is_the_f1_of_known_pixels(rng: np.random.Generator) -> None:
    truth, predicted = maps(rng)
    counts = np.stack([downstream_figures.count(*pair, 4) for pair in zip(truth, predicted, strict=True)])
    found, known = downstream_figures.dice(counts.sum(axis=0)), truth > 0
    assert np.isnan(found[0])
    expected = f1_score(truth[known], predicted[known], average=None)
    assert found[1:] == pytest.approx(expected, abs=1e-12)
    naive = [
        2 * np.sum((truth == k) & (predicted == k)) / (np.sum(truth == k) + np.sum(known & (predicted == k)))
        for k in (1, 2, 3)
    ]
    assert found[1:] == pytest.approx(naive, abs=1e-12)


def test_what_is_predicted_where_nothing_is_known_counts_nowhere(rng: np.random.Generator) -> None:
    truth, predicted = maps(rng)
    other = np.where(truth == 0, 1, predicted).astype(np.uint8)
    assert (other != predicted).any()
    assert np.array_equal(
        downstream_figures.count(truth[0], predicted[0], 4), downstream_figures.count(truth[0], other[0], 4)
    )


def test_a_class_that_the_truth_lacks_has_no_dice(rng: np.random.Generator) -> None:
    truth = rng.integers(0, 2, (1, 9, 9), np.uint8) * 2
    counts = downstream_figures.count(truth[0], np.ones((9, 9), np.uint8), 3)[None]
    assert downstream_figures.segmentation_figures(counts, LABELS) == {"mean Dice": 0.0, "Dice stroma": 0.0}


def test_figures_of_classification() -> None:
    outcomes = np.array([[1, 1]] * 6 + [[1, 0]] * 2 + [[0, 0]] * 1 + [[0, 1]] * 1)
    found = downstream_figures.classification_figures(outcomes)
    assert found["balanced accuracy"] == pytest.approx((6 / 8 + 1 / 2) / 2)
    assert found["F1"] == pytest.approx(2 * 6 / (2 * 6 + 1 + 2))


def test_a_region_is_positive_from_the_papers_share_on() -> None:
    pixels = np.array([[9996, 4, 0], [9995, 5, 0], [0, 0, 10000]])
    assert downstream.positive(pixels, LABELS, SETTINGS).tolist() == [False, True, False]


def test_arms_have_the_same_seeds_and_few_real_images_where_there_are_real_ones() -> None:
    asked = downstream.experiments(Downstream(positive="nuclei", real_images=(10, 50), seeds=3))
    kinds = [(one.task, one.trained_on, one.real_images) for one in asked if one.seed == 0]
    arms = [(arm, n) for arm in ("real", "both") for n in (None, 10, 50)] + [("synthetic", None)]
    assert set(kinds) == {(task, *arm) for task in ("classification", "segmentation") for arm in arms}
    assert len(asked) == 3 * len(kinds) == 3 * len(set(kinds))


def test_classification_is_left_out_where_nothing_is_positive() -> None:
    assert {one.task for one in downstream.experiments(Downstream())} == {"segmentation"}


def test_few_images_are_among_more(tmp_path: Path) -> None:
    crops = painted(tmp_path / "set", 9, 0)

    def sources(count: int, seed: int) -> set[str]:
        return {region.source for region in crops.part(downstream.few(crops, count, seed)).regions}

    drawn = [sources(n, 1) for n in (2, 5, 9)]
    assert [len(one) for one in drawn] == [2, 5, 9]
    assert drawn[0] < drawn[1] < drawn[2]
    assert downstream.few(crops, 9, 1).all()
    assert downstream.few(crops, None, 1).all()
    assert len({frozenset(sources(2, seed)) for seed in range(8)}) > 1
    with pytest.raises(UserError, match=r"real_images=10: .*set has 9 labelled sources"):
        downstream.few(crops, 10, 1)


def test_what_cannot_be_learned_is_named() -> None:
    both, one = np.array([[0, 5, 5]]), np.array([[5, 0, 5]])
    with pytest.raises(UserError, match="synthetic has no pixel of nuclei"):
        downstream.check_classes("synthetic", one, both, LABELS)
    downstream.check_classes("synthetic", both, one, LABELS)
    with pytest.raises(UserError, match="two known classes"):
        downstream.check_test("test", one)
    with pytest.raises(UserError, match=r"real has no region with 0.05% of nuclei"):
        downstream.check_positive("real", np.array([False, False]), SETTINGS)
    with pytest.raises(UserError, match=r"real has no region without 0.05% of nuclei"):
        downstream.check_positive("real", np.array([True, True]), SETTINGS)
    with pytest.raises(UserError, match=r"evaluation.downstream.positive=bone: .* nuclei, stroma"):
        downstream.positive(both, LABELS, Downstream(positive="bone"))


def test_the_table_is_mean_and_deviation_over_seeds() -> None:
    asked = [one for one in downstream.experiments(Downstream(seeds=3)) if one.trained_on != "both"]
    values = {"real": (0.8, 0.9, 1.0), "synthetic": (0.5, 0.5, 0.5)}
    rows = downstream.table([(one, {"mean Dice": values[one.trained_on][one.seed]}) for one in asked])
    assert [row.trained_on for row in rows] == ["real", "synthetic"]
    assert rows[0].figures["mean Dice"].mean == pytest.approx(0.9)
    assert rows[0].figures["mean Dice"].deviation == pytest.approx(0.1)
    assert rows[1].figures["mean Dice"].deviation == 0
    told = downstream.DownstreamResults(rows, 3, {"test": 4}, {}).to_json()
    assert told["rows"][0]["figures"] == {"mean Dice": pytest.approx([0.9, 0.1])}


@pytest.mark.parametrize(("real", "level"), [(0.52, "unknown"), (0.8, "good"), (0.95, "fair")])
def test_what_real_images_do_not_teach_compares_nothing(real: float, level: str) -> None:
    means = {"real": real, "synthetic": 0.75, "both": 0.8}
    rows = tuple(
        downstream.ResultRow("classification", arm, None, {"balanced accuracy": MeanStd(means[arm], 0.01)})
        for arm in downstream.TRAINING_SETS
    )
    dice = {"mean": Estimate(0.7, 0.6, 0.8)}
    found = downstream.DownstreamResults(rows, 3, {}, {"synthetic": dice, "real": dice})
    assert verdict(found).level == level
