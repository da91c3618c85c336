"""Use: what small networks learn from synthetic images (Section 5.3), as plain figures and tables.

A network is trained on real images, on synthetic ones or on both, always for the same number of steps, and
tested on real images of sources that neither it nor the generator saw. Invariants: every figure is pooled
over all regions of the test set, unknown pixels (class 0) count nowhere, and what a network cannot learn
from the data at hand is an error before any training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, f1_score

from diffgen.config import Downstream
from diffgen.errors import UserError
from diffgen.evaluation.bootstrap import MeanStd, as_json
from diffgen.evaluation.images import RegionSet
from diffgen.labels import UNKNOWN, LabelMap, Labels

TaskName = Literal["classification", "segmentation"]
TrainingSet = Literal["real", "synthetic", "both"]
TRAINING_SETS: tuple[TrainingSet, ...] = ("real", "synthetic", "both")
Counts = NDArray[np.int64]
"""(N, classes, 3): pixels of each region that are true positives, false positives, false negatives."""
Pixels = NDArray[np.int64]
"""(N, classes): pixels of each class in each region."""


@dataclass(frozen=True)
class Experiment:
    """One network."""

    task: TaskName
    trained_on: TrainingSet
    real_images: int | None
    """Of so many real sources; None for all, and for a network that sees none."""
    seed: int

    @property
    def sets(self) -> tuple[str, ...]:
        """What it is trained on."""
        return ("real", "synthetic") if self.trained_on == "both" else (self.trained_on,)

    def __str__(self) -> str:
        of = f" of {self.real_images}" if self.real_images else ""
        return f"{self.task}, trained on {self.trained_on}{of}, seed {self.seed}"


@dataclass(frozen=True)
class ResultRow:
    """Networks that differ in their seed alone."""

    task: TaskName
    trained_on: TrainingSet
    real_images: int | None
    figures: dict[str, MeanStd]
    """Segmentation: `Dice CLASS`, and `mean Dice`; classification: `balanced accuracy`, `F1`."""


@dataclass(frozen=True)
class DownstreamResults:
    """The table of Section 5.3."""

    rows: tuple[ResultRow, ...]
    seeds: int
    regions: dict[str, int]
    """How many there were of each set."""

    def to_json(self) -> dict[str, Any]:
        """Spreads as [mean, deviation]."""
        return {
            "seeds": self.seeds,
            "regions": self.regions,
            "rows": [vars(row) | {"figures": as_json(row.figures)} for row in self.rows],
        }


def experiments(settings: Downstream) -> list[Experiment]:
    """All that are asked for; classification only where it is said what is positive."""
    return [
        Experiment(task, arm, images, seed)
        for task in settings.tasks
        if task == "segmentation" or settings.positive is not None
        for arm in TRAINING_SETS
        for images in (None, *(settings.real_images if arm != "synthetic" else ()))
        for seed in range(settings.seeds)
    ]


def few(real: RegionSet, count: int | None, seed: int) -> RegionSet:
    """The regions of `count` sources drawn by `seed`: those of a smaller count are among them.

    `UserError` where there are not so many sources.
    """
    if count is None:
        return real
    names = sorted({region.source for region in real.regions})
    if count > len(names):
        raise UserError(
            f"evaluation.downstream.real_images={count}: {real.images.where} has {len(names)} "
            "labelled sources"
        )
    order = np.random.default_rng(seed).permutation(len(names))[:count]
    drawn = {names[number] for number in order.tolist()}
    return RegionSet(real.images, tuple(region for region in real.regions if region.source in drawn))


def positive(pixels: Pixels, labels: Labels, settings: Downstream) -> NDArray[np.bool_]:
    """(N,): regions with at least `positive_share` of their pixels of the class `positive`.

    `UserError` where no class is called so.
    """
    assert settings.positive is not None
    if settings.positive not in labels.classes[UNKNOWN + 1 :]:
        known = ", ".join(labels.classes[UNKNOWN + 1 :])
        raise UserError(
            f"evaluation.downstream.positive={settings.positive}: no such class; there are {known}"
        )
    share = pixels[:, labels.classes.index(settings.positive)] / pixels.sum(axis=1)
    return np.asarray(share >= settings.positive_share)


def check_classes(name: str, pixels: Pixels, test: Pixels, labels: Labels) -> None:
    """`UserError` where a class that the test set has is in no region of the training set `name`."""
    here, there = pixels.sum(axis=0), test.sum(axis=0)
    for k in range(UNKNOWN + 1, len(labels)):
        if there[k] and not here[k]:
            raise UserError(f"{name} has no pixel of {labels.classes[k]}, which the test images have")


def check_test(name: str, test: Pixels) -> None:
    """`UserError` unless there are two known classes to tell apart."""
    if np.count_nonzero(test[:, UNKNOWN + 1 :].sum(axis=0)) < 2:
        raise UserError(f"{name}: segmentation needs two known classes in the test images")


def check_positive(name: str, regions: NDArray[np.bool_], settings: Downstream) -> None:
    """`UserError` unless a set has regions of both kinds."""
    if regions.all() or not regions.any():
        what = "without" if regions.all() else "with"
        raise UserError(
            f"{name} has no region {what} {settings.positive_share:.2%} of {settings.positive}: "
            "nothing to classify"
        )


def count(truth: LabelMap, predicted: LabelMap, classes: int) -> Counts:
    """(classes, 3): true positives, false positives, false negatives by class id, unknown pixels left out."""
    known = truth != UNKNOWN
    pairs = truth[known].astype(np.int64) * classes + predicted[known]
    confusion = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    right = confusion.diagonal()
    return np.stack([right, confusion.sum(axis=0) - right, confusion.sum(axis=1) - right], axis=1)


def dice(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Dice by class id, 2·TP / (2·TP + FP + FN), of counts (…, classes, 3) pooled over a set → (…, classes).

    The F1 of pixels. NaN for a class that the truth lacks, and so for unknown.
    """
    tp, fp, fn = np.moveaxis(np.asarray(counts, dtype=float), -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(tp + fn > 0, 2 * tp / (2 * tp + fp + fn), np.nan)


def segmentation_figures(counts: Counts, labels: Labels) -> dict[str, float]:
    """Dice of each class that the truth has, and their plain mean (macro F1), of regions (N, classes, 3)."""
    found = dice(counts.sum(axis=0))
    by_class = {f"Dice {labels.classes[k]}": float(found[k]) for k in np.flatnonzero(np.isfinite(found))}
    return {"mean Dice": float(np.nanmean(found)), **by_class}


def classification_figures(outcomes: NDArray[np.int64]) -> dict[str, float]:
    """Mean of sensitivity and specificity, F1 of the positive; of (N, 2): truth and prediction, 0 or 1."""
    truth, predicted = outcomes.T
    return {
        "balanced accuracy": float(balanced_accuracy_score(truth, predicted)),
        "F1": float(f1_score(truth, predicted, zero_division=0.0)),
    }


def table(found: Sequence[tuple[Experiment, dict[str, float]]]) -> tuple[ResultRow, ...]:
    """Mean and sample deviation over the seeds, in the order of the experiments."""
    rows: dict[tuple[TaskName, TrainingSet, int | None], list[dict[str, float]]] = {}
    for one, figures in found:
        rows.setdefault((one.task, one.trained_on, one.real_images), []).append(figures)
    return tuple(
        ResultRow(*key, {name: spread([figures[name] for figures in seeds]) for name in seeds[0]})
        for key, seeds in rows.items()
    )


def spread(values: Sequence[float]) -> MeanStd:
    """Mean and sample deviation (n − 1)."""
    return MeanStd(float(np.mean(values)), float(np.std(values, ddof=1)))
