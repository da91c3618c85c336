"""How near generated label maps come to real ones: label shares (the paper's Fig. 8), regions, boundaries.

All figures are of sets of maps (H, W) uint8 of one pixel size. Class 0 is unknown: it is judged by its
own share and has no part in those of the other classes. Of single maps nothing is compared, so a copy of
the real set is perfect by all of these: whether a generator copies is another question.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as connected_components

from diffgen.labels import UNKNOWN, LabelMap

PerClass = NDArray[np.float64]
"""(classes,) by class id."""


@dataclass(frozen=True)
class MapStatistics:
    """What is measured of a set of maps."""

    unknown: float
    """Share of unknown pixels in all."""
    shares: PerClass
    """Pixels of the class over known pixels: sums to one but for class 0, which has 0."""
    regions: PerClass
    """4-connected regions of the class a mm²; those that a map's edge cuts count whole."""
    region_um2: PerClass
    """Mean area of such a region in µm²; 0 where there is none."""
    boundary: PerClass
    """Length of the class's boundary to all others, unknown too, in mm a mm²."""


@dataclass(frozen=True)
class Comparison:
    """Generated maps against real ones; of classes that the real maps have, but for the shares' errors."""

    real: MapStatistics
    generated: MapStatistics
    largest_share_error: float
    """max_c |s_c − r_c| over all classes but unknown."""
    mean_share_error: float
    """The mean of the same over the classes that either set has."""
    region_ratio: PerClass
    """Regions per mm², generated over real; NaN for a class that the real maps lack."""
    boundary_ratio: PerClass
    """Boundary a mm², generated over real; NaN where the real maps have none."""
    region_error: float
    """Median over classes of |ratio − 1|."""
    boundary_error: float
    """Median over classes of |ratio − 1|."""


def measure(maps: Sequence[LabelMap], num_classes: int, pixel_um: float) -> MapStatistics:
    """Figures of a set of label maps with pixels of `pixel_um` µm. `ValueError` for an empty set."""
    if not len(maps):
        raise ValueError("no label maps to measure")
    counts = sum((pixels(label_map, num_classes) for label_map in maps), np.zeros(num_classes, np.int64))
    total, known = counts.sum(), counts[UNKNOWN + 1 :].sum()
    regions = sum((count_regions(label_map, num_classes) for label_map in maps), np.zeros_like(counts))
    edges = sum((count_edges(label_map, num_classes) for label_map in maps), np.zeros_like(counts))
    shares = counts / max(1, known)
    shares[UNKNOWN] = 0.0
    area_mm2 = total * (pixel_um / 1000) ** 2
    return MapStatistics(
        unknown=float(counts[UNKNOWN] / total),
        shares=shares,
        regions=regions / area_mm2,
        region_um2=counts * pixel_um**2 / np.maximum(1, regions),
        boundary=edges * (pixel_um / 1000) / area_mm2,
    )


def pixels(label_map: LabelMap, num_classes: int) -> NDArray[np.int64]:
    """(classes,) pixels of each class. `ValueError` for an id that is too high."""
    counts = np.bincount(label_map.reshape(-1), minlength=num_classes)
    if len(counts) > num_classes:
        raise ValueError(f"class id {len(counts) - 1} in a label map of {num_classes} classes")
    return counts


def count_regions(label_map: LabelMap, num_classes: int) -> NDArray[np.int64]:
    """(classes,) 4-connected regions of each class."""
    parts = connected_components(label_map, background=-1, connectivity=1)
    _, first = np.unique(parts, return_index=True)
    return np.bincount(label_map.reshape(-1)[first], minlength=num_classes)


def count_edges(label_map: LabelMap, num_classes: int) -> NDArray[np.int64]:
    """(classes,) pixel edges between each class and any other, unknown too; the map's own edge is none.

    An oblique boundary is up to √2 longer in pixel edges than it is: alike for all maps of a comparison.
    """
    edges = np.zeros(num_classes, np.int64)
    for one, other in (
        (label_map[:, :-1], label_map[:, 1:]),
        (label_map[:-1], label_map[1:]),
    ):
        differ = one != other
        for side in (one[differ], other[differ]):
            edges += np.bincount(side, minlength=num_classes)
    return edges


def compare(
    real: Sequence[LabelMap], generated: Sequence[LabelMap], num_classes: int, pixel_um: float
) -> Comparison:
    """Errors and ratios of a set of generated maps against real ones of the same pixel size."""
    r, g = (measure(maps, num_classes, pixel_um) for maps in (real, generated))
    error = np.abs(g.shares - r.shares)
    present = (r.shares > 0) | (g.shares > 0)
    region_ratio, boundary_ratio = _ratio(g.regions, r.regions), _ratio(g.boundary, r.boundary)
    return Comparison(
        real=r,
        generated=g,
        largest_share_error=float(error.max()),
        mean_share_error=float(error[present].mean()) if present.any() else 0.0,
        region_ratio=region_ratio,
        boundary_ratio=boundary_ratio,
        region_error=_median_error(region_ratio),
        boundary_error=_median_error(boundary_ratio),
    )


def ceiling(
    real: Sequence[LabelMap], number: int, num_classes: int, pixel_um: float, rng: np.random.Generator
) -> Comparison:
    """What a perfect generator would get: `number` real maps, drawn at random, against the others.

    `ValueError` unless there are more maps than that.
    """
    if not 0 < number < len(real):
        raise ValueError(f"{number} of {len(real)} maps leave none to compare with")
    order = rng.permutation(len(real))
    drawn, others = ([real[i] for i in part] for part in (order[:number], order[number:]))
    return compare(others, drawn, num_classes, pixel_um)


def _ratio(generated: PerClass, real: PerClass) -> PerClass:
    """Of the known classes that the real maps have; else NaN."""
    ratio = np.full(len(real), np.nan)
    here = real > 0
    here[UNKNOWN] = False
    ratio[here] = generated[here] / real[here]
    return ratio


def _median_error(ratio: PerClass) -> float:
    known = ratio[~np.isnan(ratio)]
    return float(np.median(np.abs(known - 1))) if len(known) else 0.0
