"""Outlines: filled at pixels' centres they are the label map again, and each is valid."""

from typing import Any

import numpy as np
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import label

from diffgen.export.outlines import Outline, outlines
from tests.export.shards import pair


def filled(found: list[Outline], height: int, width: int) -> Any:
    """An independent rasterisation; pixels that two outlines hold fail it."""
    ids, held = np.zeros((height, width), np.uint8), np.zeros((height, width), int)
    for class_id, polygon in found:
        left, top, right, bottom = map(int, polygon.bounds)
        y, x = np.mgrid[top:bottom, left:right] + 0.5
        inside = shapely.contains_xy(polygon, x, y)
        ids[top:bottom, left:right][inside] = class_id
        held[top:bottom, left:right] += inside
    assert held.max(initial=0) <= 1
    return ids


maps = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3))


@given(maps, st.lists(st.integers(0, 9), max_size=3))
def test_any_label_map_in_any_bands(ids: Any, cuts: list[int]) -> None:
    bands = [band for band in np.split(ids, sorted(cuts)) if len(band)]
    found = outlines(iter(bands), ids.shape[1])
    assert np.array_equal(filled(found, *ids.shape), ids)
    assert all(outline.polygon.is_valid for outline in found)
    assert len(found) == sum(label(ids == class_id)[1] for class_id in (1, 2, 3))


def test_a_hole_is_a_hole_and_corners_alone_are_vertices() -> None:
    ids = np.zeros((8, 9), np.uint8)
    ids[1:7, 2:8] = 1
    ids[3:5, 4:6] = 2
    ring, inner = outlines(iter([ids]), 9)
    assert (ring.class_id, inner.class_id) == (1, 2)
    assert shapely.box(2, 1, 8, 7).difference(shapely.box(4, 3, 6, 5)).equals(ring.polygon)
    assert shapely.get_num_coordinates(ring.polygon) == 10
    assert inner.polygon.equals(shapely.box(4, 3, 6, 5))


def test_regions_that_touch_at_a_corner_are_two() -> None:
    found = outlines(iter([np.array([[1, 2], [2, 1]], np.uint8)]), 2)
    assert [outline.class_id for outline in found] == [1, 1, 2, 2]


def test_smooth_regions() -> None:
    ids = pair(3, 400, 300, smooth=5)[1]
    assert np.array_equal(filled(outlines(iter([ids]), 300), 400, 300), ids)
