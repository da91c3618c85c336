"""Shapes → label maps of regions, exact to the pixel: a pixel has the class of the last shape over its
centre.

A region is made by itself, whatever the slide's size, and is a crop of the whole. Inside is what shapely's
`contains` says of a pixel's centre: what lies on an outline is outside.

A centre is inside where its row has crossed the shape's outlines an odd number of times before it. Outlines
that do not meet the region cross each of its rows an even number of times, and are left aside: a shape with
100,000 holes costs no more than those that are there.
"""

from collections.abc import Mapping
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from diffgen.data.annotations.shapes import CELL_RADIUS_UM, Annotations, class_of
from diffgen.data.slides import Slide
from diffgen.labels import LabelMap

NEAR = 1e-6
"""Pixels from an outline within which rounding could decide: there shapely does. Coordinates of a million
pixels are exact to a thousandth of it."""

Box = tuple[int, int, int, int]
Floats = NDArray[np.float64]
Places = NDArray[np.intp]


class Placed(NamedTuple):
    """Shapes as areas in level-0 pixels of the file, and their outlines and holes, in their order."""

    geometries: NDArray[np.object_]
    names: tuple[str | None, ...]
    """All different."""
    named: Places
    """(shapes,) place of its name."""
    rings: NDArray[np.object_]
    owner: Places
    """(rings,) place of its shape."""
    tree: shapely.STRtree
    """Of the rings."""


def rasterise(
    annotations: Annotations, ids: Mapping[str, int], slide: Slide, box: Box, um: float, rest: int = 0
) -> LabelMap:
    """Class ids (height, width) of a region, its (left, top, width, height) in pixels of `um` µm.

    `ids` are class ids by names without case; a shape whose class has none is not drawn, `rest` is where none
    is.
    """
    left, top, width, height = box
    sx, sy = um / slide.mpp[0], um / slide.mpp[1]
    label_map = np.full((height, width), rest, np.uint8)
    placed = _placed(annotations, slide.mpp[0], slide.offset if annotations.within_bounds else (0, 0))
    found = [class_of(name, ids) for name in placed.names]
    drawn = np.array([class_id is not None for class_id in found], np.bool_)
    window = shapely.box(left * sx, top * sy, (left + width) * sx, (top + height) * sy)
    hits = np.sort(placed.tree.query(window))
    hits = hits[drawn[placed.named[placed.owner[hits]]]]
    corners, of = shapely.get_coordinates(placed.rings[hits], return_index=True)
    lines = np.stack([corners[:, 0] / sx - 0.5, corners[:, 1] / sy - 0.5, of])
    owner = placed.owner[hits][of]
    for number in np.unique(owner):
        start, stop = np.searchsorted(owner, (number, number + 1))
        class_id = found[placed.named[number]]
        assert class_id is not None, "only what has a class is drawn"
        _paint(label_map, placed.geometries[number], lines[:, start:stop], class_id, box, (sx, sy))
    return label_map


def amounts(annotations: Annotations, slide: Slide) -> dict[str, tuple[int, float]]:
    """Name of each class → how many shapes it has, and their mm² (overlaps count twice)."""
    found: dict[str, tuple[int, float]] = {}
    mm2 = slide.mpp[0] * slide.mpp[1] * 1e-6
    areas = shapely.area(_areas(annotations, slide.mpp[0])) * mm2
    for shape, area in zip(annotations.shapes, areas, strict=True):
        if shape.name is not None:
            number, sum_ = found.get(shape.name, (0, 0.0))
            found[shape.name] = number + 1, sum_ + float(area)
    return found


_PLACED: WeakKeyDictionary[Annotations, dict[tuple[float, tuple[int, int]], Placed]] = WeakKeyDictionary()


def _placed(annotations: Annotations, mpp: float, offset: tuple[int, int]) -> Placed:
    known = _PLACED.setdefault(annotations, {})
    if (mpp, offset) not in known:
        geometries = shapely.transform(_areas(annotations, mpp), lambda corners: corners + offset)
        parts, shape_of = shapely.get_parts(geometries, return_index=True)
        rings, part_of = shapely.get_rings(parts, return_index=True)
        names = {name: number for number, name in enumerate({shape.name: 0 for shape in annotations.shapes})}
        named = np.array([names[shape.name] for shape in annotations.shapes], np.intp)
        tree = shapely.STRtree(rings)
        known[mpp, offset] = Placed(geometries, tuple(names), named, rings, shape_of[part_of], tree)
    return known[mpp, offset]


def _areas(annotations: Annotations, mpp: float) -> NDArray[np.object_]:
    """Each shape as an area in level-0 pixels of `mpp` µm: a point becomes a cell."""
    geometries = np.array([shape.geometry for shape in annotations.shapes], np.object_)
    points = shapely.get_dimensions(geometries) == 0
    geometries[points] = shapely.buffer(geometries[points], CELL_RADIUS_UM / mpp)
    return geometries


def _paint(
    label_map: LabelMap,
    geometry: BaseGeometry,
    lines: Floats,
    class_id: int,
    box: Box,
    scale: tuple[float, float],
) -> None:
    """Give the pixels of a region whose centres lie in an area their class."""
    left, top, width, height = box
    first, last = np.floor(lines[:2].min(axis=1)), np.ceil(lines[:2].max(axis=1)) + 1
    x0, y0 = max(left, int(first[0])), max(top, int(first[1]))
    x1, y1 = min(left + width, int(last[0])), min(top + height, int(last[1]))
    if x1 > x0 and y1 > y0:
        inside = _inside(geometry, lines, (x0, y0, x1, y1), scale)
        label_map[y0 - top : y1 - top, x0 - left : x1 - left][inside] = class_id


def _inside(
    geometry: BaseGeometry, lines: Floats, part: Box, scale: tuple[float, float]
) -> NDArray[np.bool_]:
    """(y1 − y0, x1 − x0): which centres of the pixels from (x0, y0) to (x1, y1) lie in an area.

    `lines` (3, n) are its outlines: x and y of each corner, in pixels whose centres are whole, and a number
    that differs from outline to outline.
    """
    x0, y0, x1, y1 = part
    low, high = np.minimum(lines[1, :-1], lines[1, 1:]), np.maximum(lines[1, :-1], lines[1, 1:])
    edges = np.flatnonzero((lines[2, :-1] == lines[2, 1:]) & (high > y0 - 1) & (low < y1))
    low, high = low[edges], high[edges]
    which, rows = _spread(np.ceil(low - NEAR), np.floor(high + NEAR), y0, y1)
    x, y = lines[:2, edges[which]]
    dx, dy = lines[:2, edges[which] + 1] - (x, y)
    crossed = (low[which] <= rows) & (rows < high[which])
    places = np.ceil(x + np.divide(rows - y, dy, where=crossed, out=np.zeros_like(x)) * dx)[crossed]
    toggles = np.zeros((y1 - y0, x1 - x0 + 1), np.int32)  # at the first centre at or beyond a crossing
    np.add.at(toggles, (rows[crossed] - y0, places.clip(x0, x1).astype(np.intp) - x0), 1)
    inside: NDArray[np.bool_] = toggles[:, :-1].cumsum(axis=1) % 2 == 1

    sloping = dy != 0  # of an edge along its row all is near
    ends = [
        x + np.divide(rows + near - y, dy, where=sloping, out=np.full_like(x, share)).clip(0, 1) * dx
        for near, share in ((-NEAR, 0), (NEAR, 1))
    ]
    low, high = np.ceil(np.minimum(*ends) - NEAR), np.floor(np.maximum(*ends) + NEAR)
    which, columns = _spread(low, high, x0, x1)
    if len(columns):
        shapely.prepare(geometry)
        centres = (columns + 0.5) * scale[0], (rows[which] + 0.5) * scale[1]
        inside[rows[which] - y0, columns - x0] = shapely.contains_xy(geometry, *centres)
    return inside


def _spread(first: Floats, last: Floats, start: int, stop: int) -> tuple[Places, Places]:
    """Each whole number from `first` to `last`, both included, and from `start` to below `stop`.

    Returns the places in `first` that they are of, and the numbers.
    """
    begin = first.clip(start, stop).astype(np.intp)
    count = (last.clip(start - 1, stop - 1).astype(np.intp) + 1 - begin).clip(0)
    which = np.repeat(np.arange(len(count)), count)
    return which, begin[which] + np.arange(len(which)) - np.repeat(count.cumsum() - count, count)
