"""Shapes → label maps of regions, exact to the pixel: a pixel has the class of the last shape over its
centre.

A region is made by itself, whatever the slide's size, and is a crop of the whole. Inside is what shapely's
`contains` says of a pixel's centre: what lies on an outline is outside.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from diffgen.data.annotations.shapes import Annotations, class_of, drawn
from diffgen.data.slides import Slide
from diffgen.labels import LabelMap

NEAR = 1e-6
"""Pixels from an outline within which rounding could decide: there shapely does."""

Box = tuple[int, int, int, int]


class Placed(NamedTuple):
    """Shapes as areas in level-0 pixels of the file, in their order, and where they are."""

    names: tuple[str | None, ...]
    geometries: NDArray[np.object_]
    tree: shapely.STRtree


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
    window = shapely.box(left * sx, top * sy, (left + width) * sx, (top + height) * sy)
    for number in np.sort(placed.tree.query(window)):
        class_id = class_of(placed.names[number], ids)
        if class_id is not None:
            _paint(label_map, placed.geometries[number], class_id, box, (sx, sy))
    return label_map


def amounts(annotations: Annotations, slide: Slide) -> dict[str, tuple[int, float]]:
    """Name of each class → how many shapes it has, and their mm² (overlaps count twice)."""
    found: dict[str, tuple[int, float]] = {}
    mm2 = slide.mpp[0] * slide.mpp[1] * 1e-6
    for shape in annotations.shapes:
        if shape.name is not None:
            number, area = found.get(shape.name, (0, 0.0))
            found[shape.name] = number + 1, area + drawn(shape.geometry, slide.mpp[0]).area * mm2
    return found


_PLACED: WeakKeyDictionary[Annotations, dict[tuple[float, tuple[int, int]], Placed]] = WeakKeyDictionary()


def _placed(annotations: Annotations, mpp: float, offset: tuple[int, int]) -> Placed:
    known = _PLACED.setdefault(annotations, {})
    if (mpp, offset) not in known:
        shapes = [drawn(shape.geometry, mpp) for shape in annotations.shapes]
        moved = np.array([translate(shape, *offset) if any(offset) else shape for shape in shapes], object)
        names = tuple(shape.name for shape in annotations.shapes)
        known[mpp, offset] = Placed(names, moved, shapely.STRtree(moved))
    return known[mpp, offset]


def _paint(
    label_map: LabelMap, geometry: BaseGeometry, class_id: int, box: Box, scale: tuple[float, float]
) -> None:
    """Give the pixels of a region whose centres lie in an area their class."""
    left, top, width, height = box
    bounds = [b / s - 0.5 for b, s in zip(geometry.bounds, (*scale, *scale), strict=True)]
    x0, y0 = max(left, int(np.floor(bounds[0]))), max(top, int(np.floor(bounds[1])))
    x1 = min(left + width, int(np.ceil(bounds[2])) + 1)
    y1 = min(top + height, int(np.ceil(bounds[3])) + 1)
    if x1 <= x0 or y1 <= y0:
        return
    inside = _inside(geometry, x0, y0, x1, y1, scale)
    label_map[y0 - top : y1 - top, x0 - left : x1 - left][inside] = class_id


def _inside(
    geometry: BaseGeometry, x0: int, y0: int, x1: int, y1: int, scale: tuple[float, float]
) -> NDArray[np.bool_]:
    """(y1 − y0, x1 − x0): which pixel centres lie in an area, by where rows cross its outline."""
    height, width = y1 - y0, x1 - x0
    rows, places, doubtful_rows = _crossings(geometry, y0, y1, scale)
    column = np.ceil(places).astype(np.int64)  # the first centre at or beyond a crossing
    toggles = np.zeros((height, width + 1), np.int32)
    np.add.at(toggles, (rows - y0, (column - x0).clip(0, width)), 1)
    inside: NDArray[np.bool_] = toggles[:, :-1].cumsum(axis=1) % 2 == 1
    near = np.abs(places - np.round(places)) < NEAR
    doubtful = np.zeros((height, width), np.bool_)
    at = np.round(places[near]).astype(np.int64) - x0
    there = (at >= 0) & (at < width)
    doubtful[rows[near][there] - y0, at[there]] = True
    doubtful[[row - y0 for row in doubtful_rows]] = True
    ys, xs = np.nonzero(doubtful)
    if len(ys):
        shapely.prepare(geometry)
        centres = (xs + x0 + 0.5) * scale[0], (ys + y0 + 0.5) * scale[1]
        inside[ys, xs] = shapely.contains_xy(geometry, *centres)
    return inside


def _crossings(
    geometry: BaseGeometry, y0: int, y1: int, scale: tuple[float, float]
) -> tuple[NDArray[np.int64], NDArray[np.float64], list[int]]:
    """Row and place of each crossing of an outline with the rows' centres, in pixels whose centres are whole.

    And the rows whose centres go through a corner, or along an edge.
    """
    rows, places, doubtful = [], [], set()
    for line in _rings(geometry):
        x, y = line[:, 0] / scale[0] - 0.5, line[:, 1] / scale[1] - 0.5
        corners = np.round(y[(np.abs(y - np.round(y)) < NEAR) & (y > y0 - 1) & (y < y1)])
        doubtful |= {int(row) for row in corners if y0 <= row < y1}
        low, high = np.minimum(y[:-1], y[1:]), np.maximum(y[:-1], y[1:])
        first = np.ceil(low).astype(np.int64).clip(y0, y1)  # rows with low <= row < high
        count = (np.ceil(high).astype(np.int64).clip(y0, y1) - first).clip(0)
        edge = np.repeat(np.arange(len(count)), count)
        row = first[edge] + np.arange(len(edge)) - np.repeat(count.cumsum() - count, count)
        share = (row - y[edge]) / (y[edge + 1] - y[edge])
        rows.append(row)
        places.append(x[edge] + share * (x[edge + 1] - x[edge]))
    return np.concatenate(rows), np.concatenate(places), sorted(doubtful)


def _rings(geometry: BaseGeometry) -> Iterator[NDArray[np.float64]]:
    """(n, 2) corners of each outline and each hole, closed."""
    for polygon in shapely.get_parts(geometry):
        yield shapely.get_coordinates(polygon.exterior)
        for hole in polygon.interiors:
            yield shapely.get_coordinates(hole)
