"""Label map → outlines along its pixels' edges: whoever fills them has the label map again, bit for bit.

The edges between pixels of different ids, cut where they meet or turn, are a planar graph; its faces are the
connected regions (over pixels' edges, not corners) with their holes. The graph is found row by row, so that
memory depends on the outlines' length, not on the image's size; GEOS makes the faces.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from diffgen.labels import UNKNOWN, LabelMap

OUTSIDE = -1
ROWS = 512  # that are looked at together
Points = NDArray[np.int64]
"""(N, 2): y, x of corners of pixels."""


class Outline(NamedTuple):
    """A connected region: its class, and its outline in pixels (x to the right, y down) with its holes."""

    class_id: int
    polygon: shapely.Polygon


def outlines(bands: Iterator[LabelMap], width: int) -> list[Outline]:
    """Regions of a label map but the unknown ones, by class; its rows are given from top to bottom."""
    rights, lefts, downs, ups, below = _nodes(bands, width)
    # Row by row, and column by column, each edge begins at one node and ends at the next.
    downs, ups = (points[np.lexsort((points[:, 0], points[:, 1]))] for points in (downs, ups))
    ends = np.concatenate([np.stack([rights, lefts], 1), np.stack([downs, ups], 1)])  # (edges, 2, 2)
    lines = shapely.linestrings(ends[:, :, ::-1].astype(np.float64))
    faces = shapely.get_parts(shapely.polygonize(lines))
    # Of a face's topmost corners the leftmost: the pixel to its lower right lies inside.
    coordinates, number = shapely.get_coordinates(shapely.get_exterior_ring(faces), return_index=True)
    x, y = coordinates.astype(np.int64).T
    order = np.lexsort((x, y, number))
    first = order[np.unique(number[order], return_index=True)[1]]
    key = (width + 1) * y[first] + x[first]
    ids = below[np.searchsorted((width + 1) * rights[:, 0] + rights[:, 1], key)]
    kept = np.lexsort((key, ids))
    kept = kept[ids[kept] != UNKNOWN]
    # Corners at which an outline goes straight on are other regions'.
    simple = shapely.simplify(faces[kept], 0.0)
    return [Outline(int(i), polygon) for i, polygon in zip(ids[kept], simple, strict=True)]


def _nodes(bands: Iterator[LabelMap], width: int) -> tuple[Points, Points, Points, Points, NDArray[np.int16]]:
    """Corners where edges meet or turn, row by row, from which one goes right, left, down, up.

    Last the id of the pixel below each edge that goes right, (N,).
    """
    found: tuple[list[Points], ...] = ([], [], [], [])
    below = list[NDArray[np.int16]]()
    top, last = 0, np.full((1, width + 2), OUTSIDE, np.int16)
    for rows in _parts(bands, width):
        stack = np.concatenate([last, np.pad(rows, ((0, 0), (1, 1)), constant_values=OUTSIDE)])
        across = stack[1:] != stack[:-1]  # edges between rows, one more at each side
        along = stack[:, 1:] != stack[:, :-1]  # edges between columns
        left, right, up, down = across[:, :-1], across[:, 1:], along[:-1], along[1:]
        node = (left != right) | (up != down) | (left & up)
        for points, edge in zip(found, (right, left, down, up), strict=True):
            points.append(np.argwhere(node & edge) + np.array([top, 0]))
        below.append(stack[1:, 1:][node & right])
        top, last = top + len(rows), stack[-1:]
    rights, lefts, downs, ups = (np.concatenate(points) for points in found)
    return rights, lefts, downs, ups, np.concatenate(below)


def _parts(bands: Iterator[LabelMap], width: int) -> Iterator[NDArray[np.int16]]:
    for band in bands:
        for start in range(0, len(band), ROWS):
            yield band[start : start + ROWS].astype(np.int16)
    yield np.full((1, width), OUTSIDE, np.int16)
