"""Do synthetic images show what their own masks say? A segmenter that learned from real images is asked.

Invariants: synthetic and held-out real images are judged by the same networks and the same formula, so the
Dice on real ones is the ceiling: what the segmenter itself lacks, and not the images. What this does not
detect: images that agree with their masks because they are copies, or masks that no tissue has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffgen.evaluation.bootstrap import Estimate, as_json, estimate, of_sources, resampled
from diffgen.evaluation.downstream import Counts, dice
from diffgen.labels import Labels


@dataclass(frozen=True)
class Agreement:
    """Dice of a segmenter's map with the image's own mask, by class name, and their `mean`."""

    synthetic: dict[str, Estimate]
    real: dict[str, Estimate]
    """Of held-out real images: the ceiling."""

    def to_json(self) -> dict[str, Any]:
        """Figures as [value, low, high]."""
        return {"synthetic": as_json(self.synthetic), "real": as_json(self.real)}


def agreement(
    by_seed: Sequence[Counts], groups: NDArray[np.intp], labels: Labels, where: str
) -> dict[str, Estimate]:
    """Dice by class, pooled over regions, mean over segmenters, with an interval over sources.

    `by_seed` are the counts (N, classes, 3) of each segmenter on the same regions, `groups` (N,) the
    regions' sources. Classes that the masks lack are left out. `UserError` for a single source.
    """
    counts = np.stack(by_seed)
    (weights,) = resampled([of_sources(groups, counts.shape[1], where)])
    seeds, regions, classes, _ = counts.shape
    flat = weights @ counts.transpose(1, 0, 2, 3).reshape(regions, -1).astype(float)
    found = dice(flat.reshape(-1, seeds, classes, 3)).mean(axis=1)  # (1 + B, classes)
    there = np.flatnonzero(np.isfinite(found[0]))
    by_class = {labels.classes[k]: estimate(found[:, k]) for k in there}
    return {"mean": estimate(np.nanmean(found[:, there], axis=1)), **by_class}
