"""Label maps of the mask model, cleaned and enlarged to the image's scale.

Cleaning and enlarging only ever choose among the classes that are there, so a border never becomes a
band of some third class (the paper's Appendix F turns it into unknown).
"""

from collections.abc import Iterable
from functools import reduce
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label as connected_components

from diffgen.labels import LabelMap
from diffgen.sampling.covers import Area

Pixels = NDArray[np.int64]
"""(n,) pixel indices along one axis, in any order."""

TAPS = np.arange(-1, 3)  # mask pixels that a cubic of width 4 reaches, from the one at or before a point


def clean(label_map: LabelMap, min_pixels: int) -> LabelMap:
    """Regions below `min_pixels` given to the class of the nearest pixel of a larger region."""
    regions = connected_components(label_map, background=-1, connectivity=1)
    small = np.bincount(regions.reshape(-1))[regions] < min_pixels
    if not small.any() or small.all():
        return label_map
    nearest = ndimage.distance_transform_edt(small, return_distances=False, return_indices=True)
    return label_map[tuple(nearest)]


def clean_part(
    label_map: LabelMap, min_pixels: int, place: Area, whole: tuple[int, int]
) -> tuple[LabelMap, NDArray[np.bool_]]:
    """`clean` of the part of a label map that lies at `place` in the `whole` (H, W), and where that is sure.

    A pixel is sure if `clean` of the whole gives it the same class, whatever lies beyond the part: its region
    is not cut, or is large enough as it is; and, of a small region, it is nearer to a large one than to any
    pixel that is not sure to be of a small one. How far that reaches depends on the label map.
    """
    y0, x0, y1, x1 = place
    beyond = [(int(y0 > 0), int(y1 < whole[0])), (int(x0 > 0), int(x1 < whole[1]))]
    regions = connected_components(label_map, background=-1, connectivity=1)
    small = np.bincount(regions.reshape(-1))[regions] < min_pixels
    # A frame of one pixel where the whole goes on: what lies there is not known, nor what touches it.
    unknown = np.pad(np.zeros(label_map.shape, np.bool_), beyond, constant_values=True)
    inside = tuple(slice(a, a + side) for (a, _), side in zip(beyond, label_map.shape, strict=True))
    cut = np.unique(regions[ndimage.binary_dilation(unknown)[inside]])
    unknown[inside] = small & np.isin(regions, cut)
    if small.all():
        return label_map, np.full(label_map.shape, not unknown.any())
    distance, nearest = ndimage.distance_transform_edt(small, return_indices=True)
    sure = ~small
    if unknown.any():
        sure |= ~unknown[inside] & (distance < ndimage.distance_transform_edt(~unknown)[inside])
    else:
        sure[:] = True
    return label_map[tuple(nearest)], sure


def enlarge(
    label_map: LabelMap,
    factor: int,
    rows: Pixels,
    columns: Pixels,
    origin: tuple[int, int] = (0, 0),
    shape: tuple[int, int] | None = None,
) -> LabelMap:
    """Label map at `factor` times its scale, at the image pixels `rows` × `columns`, with smooth borders.

    Each class's indicator is interpolated and the largest wins, ties to the lowest id: a border between
    two classes stays a border between these two. A pixel depends on 4 × 4 mask pixels and on nothing
    else, so any choice of rows and columns gives the same bytes as that choice of the whole. Of a map of
    `shape` mask pixels, `label_map` may be the crop at `origin` that holds the `support` of both.
    """
    height, width = shape or label_map.shape
    top, row_weights = _taps(rows, factor)
    left, column_weights = _taps(columns, factor)
    across = np.clip(left + TAPS[:, None], 0, width - 1) - origin[1]
    chosen = np.empty((len(rows), len(columns)), dtype=np.uint8)
    for start, end in _runs(top):
        down = np.clip(top[start] + TAPS, 0, height - 1) - origin[0]
        assert min(down.min(), across.min()) >= 0, "the crop lacks a mask pixel that is needed"
        chosen[start:end] = _largest(label_map[down], across, column_weights, row_weights[:, start:end])
    return chosen


def support(pixels: Pixels, factor: int, length: int) -> tuple[int, int]:
    """Start and end of the mask pixels that image `pixels` are interpolated from, on an axis of `length`."""
    first, _ = _taps(pixels, factor)
    start, end = np.clip((first.min() + TAPS[0], first.max() + TAPS[-1]), 0, length - 1)
    return int(start), int(end) + 1


def _taps(pixels: Pixels, factor: int) -> tuple[Pixels, NDArray[np.float32]]:
    """The mask pixel that an image pixel's `TAPS` count from, and their weights (4, pixels)."""
    halves = 2 * np.asarray(pixels) + 1 - factor  # whole numbers: in which mask pixel we are is exact
    first = halves // (2 * factor)
    share = halves / (2 * factor) - first
    return first, _kernel(np.abs(share - TAPS[:, None])).astype(np.float32)


def _kernel(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cubic of Mitchell and Netravali (1988) with B = 2/3, C = 1/6, at distances up to 2 mask pixels."""
    x = distance
    near = (30 * x * x * x - 54 * x * x + 28) / 36
    far = (-10 * x * x * x + 54 * x * x - 96 * x + 56) / 36
    return np.where(x < 1, near, far)


def _runs(first: Pixels) -> list[tuple[int, int]]:
    """Start and end of the runs of equal values."""
    changes = (np.flatnonzero(np.diff(first)) + 1).tolist()
    return list(pairwise(sorted({0, *changes, len(first)})))


def _largest(
    strip: LabelMap,
    across: Pixels,
    column_weights: NDArray[np.float32],
    row_weights: NDArray[np.float32],
) -> LabelMap:
    """The class of largest weight, where all rows have the same four mask rows: `strip` (4, w)."""
    classes = np.unique(strip)
    chosen = np.full((row_weights.shape[1], across.shape[1]), classes[0], dtype=np.uint8)
    if len(classes) == 1:
        return chosen
    best = np.full(chosen.shape, -np.inf, dtype=np.float32)
    for class_id in classes:  # one at a time: two planes, however many classes
        indicator = (strip == class_id).astype(np.float32)
        line = _sum(indicator[:, taps] * weight for taps, weight in zip(across, column_weights, strict=True))
        share = _sum(taps * weight[:, None] for taps, weight in zip(line, row_weights, strict=True))
        np.copyto(chosen, class_id, where=share > best)
        np.maximum(best, share, out=best)
    return chosen


def _sum(terms: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Sum in the order given, element by element: no bit depends on the size of the arrays."""
    return reduce(np.add, terms)
