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
from sklearn.metrics import balanced_accuracy_score, f1_score

from diffgen.evaluation.bootstrap import Estimate, MeanStd, estimate, of_sources, resampled
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
