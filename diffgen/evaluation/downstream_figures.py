"""Figures of small networks: what they learned (Section 5.3), and how images agree with their own masks.

Invariants: every figure is pooled over all regions of a set, and unknown pixels (class 0) count nowhere.
Synthetic and held-out real images are judged for agreement by the same segmenters and the same formula, so
the Dice on real ones is the ceiling: what the segmenter itself lacks, and not the images. What agreement does
not detect: images that agree with their masks because they are copies, or masks that no tissue has.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t
from sklearn.metrics import balanced_accuracy_score, f1_score

from diffgen.evaluation.bootstrap import Estimate, MeanStd, estimate, of_sources, resampled
from diffgen.evaluation.small_nets import TaskName
from diffgen.labels import UNKNOWN, LabelMap, Labels

Counts = NDArray[np.int64]
"""(N, classes, 3): pixels of each region that are true positives, false positives, false negatives."""


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


def spread(values: Sequence[float]) -> MeanStd:
    """Mean and sample deviation (n − 1)."""
    return MeanStd(float(np.mean(values)), float(np.std(values, ddof=1)))


def score(outcomes: NDArray[np.int64], task: TaskName) -> float:
    """What is chosen by: mean Dice, or balanced accuracy."""
    if task == "segmentation":
        return float(np.nanmean(dice(outcomes.sum(axis=0))))
    return classification_figures(outcomes)["balanced accuracy"]


def gains(
    by_seed: Sequence[NDArray[np.int64]], real: Sequence[NDArray[np.int64]], groups: NDArray[np.intp],
    task: TaskName, labels: Labels, where: str,
) -> dict[str, Estimate]:  # fmt: skip
    """What networks reach above those of real images alone, by figure: mean over seeds, paired.

    Both are outcomes of each seed's network on the same regions (N, …). The interval has two parts, added in
    quadrature: a bootstrap draws the sources of the regions (`groups`, (N,)) again, the same for both, and
    Student's t covers the differences of the seeds (each a subset of the real images, and a start of its
    own): few seeds, wide intervals. `UserError` for one source.
    """
    (weights,) = resampled([of_sources(groups, len(groups), where)])
    pairs = [(_drawn(a, weights, task, labels), _drawn(b, weights, task, labels))
             for a, b in zip(by_seed, real, strict=True)]  # fmt: skip
    found, seeds = {}, len(pairs)
    for name in pairs[0][0]:
        differences = np.stack([a[name] - b[name] for a, b in pairs], axis=1)  # (1 + B, seeds)
        of = estimate(differences.mean(axis=1), centred=False)
        apart = differences[0].std(ddof=1) if seeds > 1 else 0.0
        half = float(t.ppf(0.975, max(seeds - 1, 1)) * apart / np.sqrt(seeds))
        low, high = (float(np.hypot(of.value - end, half)) for end in (of.low, of.high))
        found[name] = Estimate(of.value, of.value - low, of.value + high)
    return found


def _drawn(
    outcomes: NDArray[np.int64], weights: NDArray[np.float64], task: TaskName, labels: Labels
) -> dict[str, NDArray[np.float64]]:
    """Figures as `segmentation_figures` or `classification_figures` give them, of each row of weights."""
    if task == "segmentation":
        flat = weights @ outcomes.reshape(len(outcomes), -1).astype(float)
        of = dice(flat.reshape(len(weights), *outcomes.shape[1:]))
        there = np.flatnonzero(np.isfinite(of[0]))
        by_class = {f"Dice {labels.classes[k]}": of[:, k] for k in there}
        return {"mean Dice": np.nanmean(of[:, there], axis=1), **by_class}
    truth, predicted = outcomes.T.astype(bool)
    tp, fn = weights @ (truth & predicted), weights @ (truth & ~predicted)
    tn, fp = weights @ (~truth & ~predicted), weights @ (~truth & predicted)
    with np.errstate(divide="ignore", invalid="ignore"):
        accuracy = (tp / (tp + fn) + tn / (tn + fp)) / 2
        return {"balanced accuracy": accuracy, "F1": np.where(tp > 0, 2 * tp / (2 * tp + fp + fn), 0.0)}


def agreement(
    by_seed: Sequence[Counts], groups: NDArray[np.intp], labels: Labels, where: str
) -> dict[str, Estimate]:
    """Dice of segmenters' maps with the images' own masks by class name, and their `mean`.

    Pooled over regions, mean over segmenters, with an interval over sources. `by_seed` are the counts
    (N, classes, 3) of each segmenter on the same regions, `groups` (N,) the regions' sources. Classes that
    the masks lack are left out. `UserError` for a single source.
    """
    counts = np.stack(by_seed)
    (weights,) = resampled([of_sources(groups, counts.shape[1], where)])
    seeds, regions, classes, _ = counts.shape
    flat = weights @ counts.transpose(1, 0, 2, 3).reshape(regions, -1).astype(float)
    found = dice(flat.reshape(-1, seeds, classes, 3)).mean(axis=1)  # (1 + B, classes)
    there = np.flatnonzero(np.isfinite(found[0]))
    by_class = {labels.classes[k]: estimate(found[:, k]) for k in there}
    return {"mean": estimate(np.nanmean(found[:, there], axis=1)), **by_class}
