"""Use: figures against scikit-learn and by hand, what is trained on what, and what cannot be learned."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from diffgen.config import Downstream
from diffgen.errors import UserError
from diffgen.evaluation import downstream, downstream_figures, learnable
from diffgen.evaluation.bootstrap import Estimate, MeanStd
from diffgen.evaluation.experiments import Arm, Experiment, experiments
from diffgen.evaluation.labelled_regions import GroupedClasses
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
    assert learnable.positive(pixels, LABELS, SETTINGS).tolist() == [False, True, False]


def test_arms_have_the_same_seeds_and_few_real_images_where_there_are_real_ones() -> None:
    asked = experiments(Downstream(positive="nuclei", real_images=(10, 50), seeds=3))
    kinds = [one.arm[:3] for one in asked if one.seed == 0]
    arms = [(arm, n) for arm in ("real", "both") for n in (None, 10, 50)] + [("synthetic", None)]
    assert set(kinds) == {(task, *arm) for task in ("classification", "segmentation") for arm in arms}
    assert len(asked) == 3 * len(kinds) == 3 * len(set(kinds))


def test_classification_is_left_out_where_nothing_is_positive() -> None:
    assert {one.arm.task for one in experiments(Downstream())} == {"segmentation"}


def test_few_images_are_among_more(tmp_path: Path) -> None:
    crops = painted(tmp_path / "set", 9, 0)

    def sources(count: int, seed: int) -> set[str]:
        return {region.source for region in crops.part(learnable.few(crops, count, seed)).regions}

    drawn = [sources(n, 1) for n in (2, 5, 9)]
    assert [len(one) for one in drawn] == [2, 5, 9]
    assert drawn[0] < drawn[1] < drawn[2]
    assert learnable.few(crops, 9, 1).all()
    assert learnable.few(crops, None, 1).all()
    assert len({frozenset(sources(2, seed)) for seed in range(8)}) > 1
    with pytest.raises(UserError, match=r"real_images=10: .*set has 9 labelled sources"):
        learnable.few(crops, 10, 1)


def test_what_cannot_be_learned_is_named() -> None:
    both, one = np.array([[0, 5, 5]]), np.array([[5, 0, 5]])
    with pytest.raises(UserError, match="synthetic has no pixel of nuclei"):
        learnable.check_classes("synthetic", one, both, LABELS)
    learnable.check_classes("synthetic", both, one, LABELS)
    with pytest.raises(UserError, match="two known classes"):
        learnable.check_test("test", one)
    with pytest.raises(UserError, match=r"real has no region with 0.05% of nuclei"):
        learnable.check_positive("real", np.array([False, False]), SETTINGS)
    with pytest.raises(UserError, match=r"real has no region without 0.05% of nuclei"):
        learnable.check_positive("real", np.array([True, True]), SETTINGS)
    with pytest.raises(UserError, match=r"evaluation.downstream.positive=bone: .* nuclei, stroma"):
        learnable.positive(both, LABELS, Downstream(positive="bone"))


class Finished:
    """A job as the table reads it."""

    def __init__(
        self, experiment: Experiment, outcomes: np.ndarray, validation: np.ndarray | None = None
    ) -> None:
        self.experiment, self.stopped = experiment, 10
        self.judged = {"test": outcomes} | ({} if validation is None else {"validation": validation})

    def outcomes(self, name: str = "test") -> np.ndarray:
        return self.judged[name]


def counts(dice: float, regions: int = 10) -> np.ndarray:
    """(N, 2, 3) of one known class with this Dice."""
    right = round(1000 * dice)
    return np.array([[[0, 0, 0], [right, 1000 - right, 1000 - right]]] * regions)


def test_the_table_is_mean_and_deviation_over_seeds(tmp_path: Path) -> None:
    asked = [one for one in experiments(Downstream(seeds=3)) if one.arm.trained_on != "both"]
    values = {"real": (0.8, 0.9, 1.0), "synthetic": (0.5, 0.5, 0.5)}
    found = [(one, Finished(one, counts(values[one.arm.trained_on][one.seed]))) for one in asked]
    rows = downstream.table(found, LABELS, painted(tmp_path / "test", 10, 0))
    assert [row.arm.trained_on for row in rows] == ["real", "synthetic"]
    assert rows[0].figures["mean Dice"].mean == pytest.approx(0.9)
    assert rows[0].figures["mean Dice"].deviation == pytest.approx(0.1)
    assert rows[1].figures["mean Dice"].deviation == 0
    assert rows[0].gains == {}
    gain = rows[1].gains["mean Dice"]
    assert gain.value == pytest.approx(-0.4)
    assert (gain.low, gain.high) == pytest.approx((-0.4 - 0.2484, -0.4 + 0.2484), abs=1e-3)  # Student's t
    told = downstream.DownstreamResults(rows, 3, {"test": 4}, {}).to_json()
    assert told["rows"][0]["figures"]["mean Dice"] == pytest.approx([0.9, 0.1])
    assert told["rows"][1]["trained_on"] == "synthetic"


def test_gains_are_paired(rng: np.random.Generator) -> None:
    """What is hard for all of them is no doubt about the difference."""
    hard = rng.uniform(0.2, 0.9, 40)
    real, better = (np.concatenate([counts(value, 1) for value in hard + more]) for more in (0, 0.05))
    groups = np.arange(40)
    gain = downstream_figures.gains([better] * 3, [real] * 3, groups, "segmentation", LABELS, "test")
    assert gain["mean Dice"].value == pytest.approx(0.05, abs=1e-3)
    assert gain["mean Dice"].high - gain["mean Dice"].low < 0.002
    alone = downstream_figures.agreement([real] * 3, groups, LABELS, "test")["mean"]
    assert alone.high - alone.low > 0.05


def test_intervals_of_gains_hold_the_truth() -> None:
    """Of 60 experiments of three seeds, whose networks and test images differ, nearly all."""
    rng, held = np.random.default_rng(1), 0
    for _ in range(60):
        hard, shifts = rng.normal(0.6, 0.1, 20), rng.normal(0.03, 0.02, 3)
        real = [np.concatenate([counts(value, 1) for value in hard])] * 3
        better = [np.concatenate([counts(value + shift, 1) for value in hard]) for shift in shifts]
        gain = downstream_figures.gains(better, real, np.arange(20), "segmentation", LABELS, "test")
        held += gain["mean Dice"].low <= 0.03 <= gain["mean Dice"].high
    assert held >= 54


def test_gains_of_classifiers_are_differences_of_their_figures(rng: np.random.Generator) -> None:
    truth = rng.integers(0, 2, 60)
    a, b = (np.stack([truth, truth ^ (rng.random(60) < wrong)], axis=1) for wrong in (0.1, 0.3))
    found = downstream_figures.gains([a], [b], np.arange(60), "classification", LABELS, "test")
    for name, value in found.items():
        one, other = (downstream_figures.classification_figures(of)[name] for of in (a, b))
        assert value.value == pytest.approx(one - other)


def test_the_share_is_chosen_on_validation_images_alone(tmp_path: Path) -> None:
    settings = Downstream(tasks=("segmentation",), shares=(0.1, 0.5), stops=2)
    tested, validated = {0.1: 0.9, 0.5: 0.4, None: 0.6}, {0.1: 0.5, 0.5: 0.7, None: 0.6}
    found = [
        (one, Finished(one, counts(tested[one.arm.share]), counts(validated[one.arm.share])))
        for one in experiments(settings)
    ]
    rows = downstream.table(found, LABELS, painted(tmp_path / "test", 10, 0))
    assert {row.arm.share: row.chosen for row in rows} == {None: True, 0.1: False, 0.5: True}
    assert {row.arm.share: row.validation for row in rows} == pytest.approx(validated)


def test_arms_beyond_the_usual_only_where_asked() -> None:
    usual = {one.arm.name for one in experiments(Downstream(positive="nuclei"))}
    assert usual == {"real", "synthetic", "both, 50% synthetic"}
    more = Downstream(positive="nuclei", arms=("real", "pretrained"), filters=(False, True), real_images=(5,))
    arms = [one.arm for one in experiments(more) if one.seed == 0]
    assert not any(arm.filtered for arm in arms if arm.task == "classification" or arm.trained_on == "real")
    assert sum(arm.filtered for arm in arms) == 2
    few = more.model_copy(update={"all_images": False})
    counted = [one.arm[1:3] for one in experiments(few) if one.arm.task == "segmentation"]
    assert set(counted) == {("real", None), ("real", 5), ("pretrained", 5)}
    with pytest.raises(ValueError, match="real is what the others are compared with"):
        Downstream(arms=("synthetic",))


def test_validation_images_are_of_other_sources_and_the_same_for_all(tmp_path: Path) -> None:
    crops = painted(tmp_path / "set", 20, 0)
    kept, none = learnable.set_apart(crops, Downstream())
    assert (len(kept), none) == (20, None)
    kept, apart = learnable.set_apart(crops, Downstream(stops=4))
    assert apart is not None
    assert (len(kept), len(apart)) == (16, 4)
    assert not {one.source for one in kept.regions} & {one.source for one in apart.regions}
    with pytest.raises(UserError, match="too few to set some apart"):
        learnable.set_apart(painted(tmp_path / "few", 4, 0), Downstream(shares=(0.1, 0.2)))


def test_real_images_of_some_contexts(tmp_path: Path) -> None:
    crops = painted(tmp_path / "set", 4, 0)
    assert learnable.of_contexts(crops, ()) is crops
    with pytest.raises(UserError, match=r"lung is none of .*set: only prepared data tells contexts"):
        learnable.of_contexts(crops, ("lung",))
    crops.images.contexts = dict.fromkeys((region.source for region in crops.regions), "skin")
    crops.images.contexts[crops.regions[2].source] = "lung"
    assert learnable.of_contexts(crops, ("lung",)).regions == crops.regions[2:3]
    with pytest.raises(UserError, match=r"liver is none of .*: it has lung, skin"):
        learnable.of_contexts(crops, ("liver",))


def test_classes_that_count_as_one(tmp_path: Path) -> None:
    crops = painted(tmp_path / "set", 2, 0)
    grouped = GroupedClasses(crops.images, {"tissue": ("nuclei", "stroma")})
    assert grouped.labels is not None
    assert grouped.labels.classes == ("unknown", "tissue")
    region, before = crops.regions[0], crops.images.label_map(crops.regions[0])
    assert np.array_equal(grouped.label_map(region), np.minimum(before, 1))
    assert grouped.digest != crops.images.digest
    with pytest.raises(UserError, match="bone: no such class; there are nuclei, stroma"):
        GroupedClasses(crops.images, {"tissue": ("bone",)})


@pytest.mark.parametrize(("real", "level"), [(0.52, "unknown"), (0.8, "good"), (0.95, "fair")])
def test_what_real_images_do_not_teach_compares_nothing(real: float, level: str) -> None:
    means = {"real": real, "synthetic": 0.75, "both": 0.8}
    gain = {"balanced accuracy": Estimate(0.01, -0.02, 0.04)}
    rows = tuple(
        downstream.ResultRow(
            Arm("classification", arm, None), {"balanced accuracy": MeanStd(means[arm], 0.01)}, gain
        )
        for arm in means
    )
    dice = {"mean": Estimate(0.7, 0.6, 0.8)}
    found = downstream.DownstreamResults(rows, 3, {}, {"synthetic": dice, "real": dice})
    assert verdict(found).level == level
