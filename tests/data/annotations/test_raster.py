"""Rasters of shapes against shapely's own word on every pixel centre."""

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry.base import BaseGeometry

from diffgen.data.annotations import Annotations, Shape, amounts, rasterise
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
