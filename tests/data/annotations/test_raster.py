"""Rasters of shapes against shapely's own word on every pixel centre."""

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry.base import BaseGeometry

from diffgen.data.annotations import Annotations, Shape, amounts, rasterise
from diffgen.data.annotations.shapes import areas
from diffgen.data.formats.base import ImagePixels
from diffgen.data.slides import Slide

IDS = {"tumour": 1, "stroma": 2}


def slide(side: int = 40, mpp: float = 0.5, offset: tuple[int, int] = (0, 0)) -> Slide:
    from PIL import Image

    return Slide(ImagePixels(Image.new("RGB", (side, side))), (mpp, mpp), offset)


def by_centres(shapes: list[tuple[int, BaseGeometry]], side: int, scale: float = 1.0) -> np.ndarray:
    """What shapely says, pixel by pixel."""
    ys, xs = np.mgrid[:side, :side]
    expected = np.zeros((side, side), np.uint8)
    for class_id, geometry in shapes:
        expected[shapely.contains_xy(geometry, (xs + 0.5) * scale, (ys + 0.5) * scale)] = class_id
    return expected


def raster(shapes: list[Shape], side: int = 40, um: float = 0.5, rest: int = 0) -> np.ndarray:
    return rasterise(Annotations(tuple(shapes)), IDS, slide(), (0, 0, side, side), um, rest)


# Whole and half coordinates, as programs write them, put corners and edges on pixel centres.
coordinates = st.one_of(
    st.integers(-4, 44).map(float), st.integers(-8, 88).map(lambda n: n / 2), st.floats(-4, 44)
)
points = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9)


@given(points, points, st.sampled_from([1.0, 2.0, 1.7]))
def test_a_pixel_has_the_class_of_the_last_shape_over_its_centre(
    one: list[tuple[float, float]], two: list[tuple[float, float]], scale: float
) -> None:
    found = []
    for name, corners in (("Tumour", one), ("stroma", two)):
        geometry = shapely.make_valid(shapely.Polygon(corners))
        geometry = shapely.union_all([g for g in shapely.get_parts(geometry) if g.geom_type == "Polygon"])
        if not geometry.is_empty:
            found.append(Shape(name, geometry))
    side = int(40 / scale)
    expected = by_centres([(IDS[shape.name.lower()], shape.geometry) for shape in found], side, scale)
    assert np.array_equal(raster(found, side, 0.5 * scale), expected)


@given(points, st.integers(0, 30), st.integers(0, 30), st.integers(1, 20), st.integers(1, 20))
def test_a_region_is_a_crop_of_the_whole(
    corners: list[tuple[float, float]], left: int, top: int, width: int, height: int
) -> None:
    drawn = Annotations((Shape("tumour", shapely.make_valid(shapely.Polygon(corners)).buffer(0.3)),))
    whole = rasterise(drawn, IDS, slide(), (0, 0, 60, 60), 0.5)
    part = rasterise(drawn, IDS, slide(), (left, top, width, height), 0.5)
    assert np.array_equal(part, whole[top : top + height, left : left + width])


def test_a_hole_is_what_lies_below_it() -> None:
    ground = Shape("stroma", shapely.box(0, 0, 40, 40))
    ring = Shape("tumour", shapely.box(10, 10, 30, 30).difference(shapely.box(15, 15, 25, 25)))
    made = raster([ground, ring])
    assert made[20, 20] == 2
    assert made[12, 12] == 1
    assert raster([ring, ground]).tolist() == np.full((40, 40), 2).tolist()


def test_shapes_without_a_class_are_not_drawn_and_the_rest_has_its_own() -> None:
    other = Shape("necrosis", shapely.box(0, 0, 40, 40))
    nameless = Shape(None, shapely.box(0, 0, 40, 40))
    assert (raster([other, nameless], rest=2) == 2).all()


def test_nested_names_match_by_their_parts() -> None:
    assert raster([Shape("Tumour: Positive", shapely.box(0, 0, 40, 40))]).min() == 1


def test_a_point_is_a_cell() -> None:
    made = raster([Shape("tumour", shapely.Point(20, 20))])
    assert made.sum() == pytest.approx(np.pi * 8**2, rel=0.05)  # a radius of 4 µm, at 0.5 µm per pixel


def test_coordinates_of_the_scanned_part_are_moved() -> None:
    drawn = Annotations((Shape("tumour", shapely.box(0, 0, 5, 5)),), within_bounds=True)
    made = rasterise(drawn, IDS, slide(offset=(10, 20)), (0, 0, 40, 40), 0.5)
    assert np.argwhere(made)[0].tolist() == [20, 10]


def test_how_much_of_a_class_there_is() -> None:
    drawn = Annotations(
        (Shape("Tumour", shapely.box(0, 0, 2000, 1000)), Shape(None, shapely.box(0, 0, 1, 1)))
    )
    assert amounts(drawn, slide()) == {"Tumour": (1, pytest.approx(0.5))}


@given(st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9), st.integers(0, 20))
def test_holes_and_parts_are_left_out_to_the_pixel(corners: list[tuple[float, float]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = [shapely.box(x, y, x + w, y + h) for x, y, w, h in rng.integers(0, 80, (30, 4)) / 2]
    area = areas(shapely.MultiPolygon([*boxes[:15], shapely.Polygon(corners)]))
    assert area is not None
    area = areas(area.difference(shapely.union_all(boxes[15:])).buffer(0))
    drawn = [] if area is None else [Shape("tumour", area)]
    assert np.array_equal(raster(drawn), by_centres([(1, one.geometry) for one in drawn], 40))
    part = rasterise(Annotations(tuple(drawn)), IDS, slide(), (7, 5, 20, 20), 0.5)
    assert np.array_equal(part, raster(drawn)[5:25, 7:27])


@given(st.floats(-6, -1), st.floats(-6, -1), st.sampled_from([1.0, 1.7, 0.3]), st.integers(0, 8))
def test_long_edges_that_nearly_follow_a_row_far_from_the_origin(
    above: float, below: float, scale: float, row: int
) -> None:
    top, width = 100_000, 20_000
    y = top + row + 0.5
    ends = (0.0, y - 10**above), (float(width), y + 10**below)
    corners = [*ends, (width, y + 3), (0, y + 3.1)]
    area = shapely.Polygon([(a * scale, b * scale) for a, b in corners])
    left = max(0, int(width * 10**above / (10**above + 10**below)) - 16)  # where the edge meets the row
    made = rasterise(Annotations((Shape("tumour", area),)), IDS, slide(), (left, top, 32, 12), 0.5 * scale)
    ys, xs = np.mgrid[top : top + 12, left : left + 32] + 0.5
    assert np.array_equal(made == 1, shapely.contains_xy(area, xs * scale, ys * scale))


def test_corners_that_are_there_twice_and_coordinates_beyond_all_slides() -> None:
    twice = shapely.Polygon([(0.5, 0.5), (0.5, 0.5), (9, 0.5), (9, 9), (9, 9), (0.5, 9)])
    assert np.array_equal(raster([Shape("tumour", twice)]), by_centres([(1, twice)], 40))
    assert (raster([Shape("tumour", shapely.box(-1e25, -1e25, 1e25, 1e25))]) == 1).all()
    assert (raster([]) == 0).all()


def test_a_shape_of_many_parts_is_looked_at_where_the_region_is() -> None:
    many = shapely.MultiPolygon(
        [shapely.box(x, y, x + 5, y + 5) for x in range(0, 600, 10) for y in range(0, 600, 10)]
    )
    drawn = Annotations((Shape("tumour", many),))
    made = rasterise(drawn, IDS, slide(), (300, 300, 40, 40), 0.5)
    ys, xs = np.mgrid[300:340, 300:340] + 0.5
    assert np.array_equal(made == 1, shapely.contains_xy(many, xs, ys))
