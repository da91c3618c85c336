"""Label map → outlines along its pixels' edges: whoever fills them has the label map again, bit for bit.

The edges between pixels of different ids, cut where they meet, are a planar graph; its faces are the
connected regions (over pixels' edges, not corners) with their holes. The graph is found a few rows at a time,
so that memory depends on the outlines' length, not on the image's size; GEOS makes the faces.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from diffgen.labels import UNKNOWN, LabelMap

OUTSIDE = -1
ROWS = 512  # that are looked at together
FACES = 4096  # whose class is looked up together
Rows = NDArray[np.int16]
"""(h, W + 2) ids, with a column of `OUTSIDE` on both sides."""


class Outline(NamedTuple):
    """A connected region: its class, and its outline in pixels (x to the right, y down) with its holes."""

    class_id: int
    polygon: shapely.Polygon


class Strip(NamedTuple):
    """What a few rows add to the graph."""

    lines: NDArray[np.object_]
    """They end where lines meet, and at the strip's first and last row."""
    corners: NDArray[np.int64]
    """Upper left corners of regions, or of parts of them, as `_key`s in rising order."""
    ids: NDArray[np.int16]
    """Of the pixels there."""


def outlines(bands: Iterator[LabelMap], width: int) -> list[Outline]:
    """Regions of a label map but the unknown ones, by class; its rows are given from top to bottom."""
    strips, top = list[Strip](), 0
    last = np.full((1, width + 2), OUTSIDE, np.int16)
    for rows in _parts(bands, width):
        strips.append(_strip(last, rows, top))
        top, last = top + len(rows), rows[-1:]
    corners = np.concatenate([strip.corners for strip in strips])
    ids = np.concatenate([strip.ids for strip in strips])
    lines = np.concatenate([strip.lines for strip in strips])
    strips.clear()
    faces = shapely.get_parts(shapely.polygonize(lines))
    keys = np.concatenate([_firsts(faces[k : k + FACES], width) for k in range(0, len(faces), FACES)])
    classes = ids[np.searchsorted(corners, keys)]
    kept = np.lexsort((keys, classes))
    kept = kept[classes[kept] != UNKNOWN]
    # Corners at which an outline goes straight on are other regions', or lie between two strips.
    simple = shapely.simplify(faces[kept], 0.0)
    return [Outline(int(i), polygon) for i, polygon in zip(classes[kept], simple, strict=True)]


def _parts(bands: Iterator[LabelMap], width: int) -> Iterator[Rows]:
    """A few rows at a time, and one below the image."""
    for band in bands:
        for start in range(0, len(band), ROWS):
            rows = band[start : start + ROWS].astype(np.int16)
            yield np.pad(rows, ((0, 0), (1, 1)), constant_values=OUTSIDE)
    yield np.full((1, width + 2), OUTSIDE, np.int16)


def _strip(above: Rows, rows: Rows, top: int) -> Strip:
    """Edges along these rows, and between them and the row above: columns of corners are 0 to W."""
    stack = np.concatenate([above, rows])
    across, along = stack[1:] != stack[:-1], stack[:, 1:] != stack[:, :-1]
    left, right, up, down = across[:, :-1], across[:, 1:], along[:-1], along[1:]
    node = (left != right) | (up != down) | (left & up)
    first = np.zeros_like(node)
    first[0] = True
    # Edges from left to right: in each row they begin and end by turns.
    level = np.stack([np.argwhere(node & right), np.argwhere(node & left)], 1)  # (edges, 2, (y, x))
    # Edges from top to bottom, which the strip's own end cuts.
    starts = np.argwhere((down & (node | first)).T)
    stops = np.argwhere(np.concatenate([up[1:] & node[1:], down[-1:]]).T) + (0, 1)  # noqa: RUF005
    upright = np.stack([starts, stops], 1)[:, :, ::-1]
    # On the first row edges of the strip above may end: what meets there stays apart.
    inner = np.concatenate([level[level[:, 0, 0] > 0], upright])
    merged = shapely.get_parts(shapely.line_merge(shapely.multilinestrings(_lines(inner, top))))
    lines = np.concatenate([_lines(level[level[:, 0, 0] == 0], top), merged])
    y, x = np.nonzero(node & right & down)
    return Strip(lines, _key(y + top, x, rows.shape[1]), rows[y, x + 1])


def _lines(ends: NDArray[np.int64], top: int) -> NDArray[np.object_]:
    """(edges, 2, (y, x)) in a strip that begins at row `top` → lines in x and y."""
    made: NDArray[np.object_] = shapely.linestrings((ends[:, :, ::-1] + (0, top)).astype(np.float64))
    return made


def _firsts(faces: NDArray[np.object_], width: int) -> NDArray[np.int64]:
    """Of each face's topmost corners the leftmost: the pixel to its lower right lies inside."""
    points, number = shapely.get_coordinates(shapely.get_exterior_ring(faces), return_index=True)
    x, y = points.astype(np.int64).T
    smallest = np.full(len(faces), np.iinfo(np.int64).max)
    np.minimum.at(smallest, number, _key(y, x, width + 2))
    return smallest


def _key(y: NDArray[np.int64], x: NDArray[np.int64], across: int) -> NDArray[np.int64]:
    """Corners by number, row by row."""
    return y * across + x
