"""How near generated label maps come to real ones: label shares (the paper's Fig. 8), regions, boundaries.

All figures are of sets of maps (H, W) uint8 of one pixel size. Class 0 is unknown: it is judged by its
own share and has no part in those of the other classes. Of single maps nothing is compared, so a copy of
the real set is perfect by all of these: whether a generator copies is another question.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as connected_components

from diffgen.evaluation.bootstrap import RESAMPLES, Estimate, Weights, off, over, resampled
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


class Counts(NamedTuple):
    """What is counted in each of some maps, (N, classes)."""

    pixels: NDArray[np.int64]
    regions: NDArray[np.int64]
    edges: NDArray[np.int64]


@dataclass(frozen=True)
class Errors:
    """Errors of generated maps with intervals over the sources of both sets: of populations of maps."""

    shares: list[Estimate]
    """|s_c − r_c| of each known class."""
    largest_share: Estimate
    boundary: Estimate | None
    """Median over classes of |ratio − 1|; None where the real maps have no boundary."""


def counted(maps: Iterable[LabelMap], num_classes: int) -> Counts:
    """Of each map; `ValueError` for an id that is too high."""
    rows = [tuple(count(one, num_classes) for count in (pixels, count_regions, count_edges)) for one in maps]
    return Counts(*(np.stack(column) for column in zip(*rows, strict=True)))


def statistics(counted: Counts, pixel_um: float) -> MapStatistics:
    """Figures of all maps together, with pixels of `pixel_um` µm."""
    counts, regions, edges = (one.sum(axis=0) for one in counted)
    total, known = counts.sum(), counts[UNKNOWN + 1 :].sum()
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
    return compare_counts(counted(real, num_classes), counted(generated, num_classes), pixel_um)


def compare_counts(real: Counts, generated: Counts, pixel_um: float) -> Comparison:
    """As `compare`, of maps that were counted."""
    r, g = (statistics(one, pixel_um) for one in (real, generated))
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


def errors(
    real: Counts,
    generated: Counts,
    sources: Sequence[NDArray[np.intp]],
    count: int = RESAMPLES,
    seed: int = 0,
) -> Errors:
    """Of two sets of maps, with the numbers (N,) of the sources of each."""
    sets, weights = (real, generated), resampled(sources, count, seed)
    least = min(len(np.unique(one)) for one in sources)
    shares = [_shares(one.pixels, drawn) for one, drawn in zip(sets, weights, strict=True)]
    known = real.pixels.shape[1] - UNKNOWN - 1
    found = off((shares[1] - shares[0])[:, UNKNOWN + 1 :], least, among=known)
    lengths = [
        drawn @ one.edges / (drawn @ one.pixels.sum(axis=1))[:, None]
        for one, drawn in zip(sets, weights, strict=True)
    ]
    there = lengths[0][0] > 0
    there[UNKNOWN] = False
    boundary = None
    if there.any():
        with np.errstate(divide="ignore", invalid="ignore"):
            boundary = over(off(lengths[1][:, there] / lengths[0][:, there] - 1, least), np.median)
    return Errors(found, over(found, max), boundary)


def _shares(pixels: NDArray[np.int64], weights: Weights) -> NDArray[np.float64]:
    """(B, classes): pixels of each class over the known ones."""
    total = weights @ pixels
    return np.asarray(total / np.maximum(1, total[:, UNKNOWN + 1 :].sum(axis=1, keepdims=True)))


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
