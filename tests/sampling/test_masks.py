import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffgen import label_maps
from diffgen.sampling import masks

maps = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 9))


@given(maps, st.integers(1, 20))
def test_cleaning_leaves_no_small_region_and_no_new_class(label_map: np.ndarray, least: int) -> None:
    from skimage.measure import label

    cleaned = masks.clean(label_map, least)
    assert set(np.unique(cleaned)) <= set(np.unique(label_map))
    regions = np.bincount(label(label_map, background=-1, connectivity=1).reshape(-1))[1:]
    if (regions >= least).any():
        after = np.bincount(label(cleaned, background=-1, connectivity=1).reshape(-1))[1:]
        assert after.min() >= least
    else:
        assert np.array_equal(cleaned, label_map)


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24), elements=st.integers(0, 3)),
    st.integers(1, 4),
    st.integers(1, 20),
    st.data(),
)
def test_what_is_sure_of_a_part_is_cleaned_as_in_the_whole(
    coarse: np.ndarray, zoom: int, least: int, data: st.DataObject
) -> None:
    """Blocks of a class and speckles, cut anywhere: no more is promised than the part can know."""
    label_map = np.kron(coarse, np.ones((zoom, zoom), np.uint8))[:40, :40]
    speckles = np.random.default_rng(least).random(label_map.shape) < 0.1
    label_map[speckles] = 9
    cleaned = masks.clean(label_map, least)
    (y0, y1), (x0, x1) = (
        sorted(data.draw(st.lists(st.integers(0, side), min_size=2, max_size=2, unique=True)))
        for side in label_map.shape
    )
    part, sure = masks.clean_part(label_map[y0:y1, x0:x1], least, (y0, x0, y1, x1), label_map.shape)
    assert np.array_equal(part[sure], cleaned[y0:y1, x0:x1][sure])
    alone, all_sure = masks.clean_part(label_map, least, (0, 0, *label_map.shape), label_map.shape)
    assert np.array_equal(alone, cleaned)
    assert all_sure.all()


def test_a_part_is_sure_of_what_lies_well_inside_of_it() -> None:
    """Speckles in large areas: all is sure beyond the reach of a small region, and what is cut is not."""
    label_map = np.zeros((60, 60), np.uint8)
    label_map[:, 33:] = 1
    label_map[5::10, 5::10] = 2
    label_map[19:22, 39:42] = 3  # cut at 20, and small
    part, sure = masks.clean_part(label_map[20:50, 20:40], 12, (20, 20, 50, 40), label_map.shape)
    assert np.array_equal(part[sure], masks.clean(label_map, 12)[20:50, 20:40][sure])
    assert sure[4:].all()
    assert not sure[0, -1]


def whole(label_map: np.ndarray, factor: int) -> np.ndarray:
    rows, columns = (np.arange(side * factor) for side in label_map.shape)
    return masks.enlarge(label_map, factor, rows, columns)


@given(maps, st.integers(1, 8))
def test_enlarging_adds_no_class_and_keeps_flat_areas(label_map: np.ndarray, factor: int) -> None:
    large = whole(label_map, factor)
    assert large.shape == tuple(side * factor for side in label_map.shape)
    assert set(np.unique(large)) <= set(np.unique(label_map))
    assert (whole(np.full((3, 3), 4, np.uint8), factor) == 4).all()


@given(maps, st.sampled_from([1, 3, 4, 8, 16]))
def test_the_middle_of_a_mask_pixel_keeps_its_class(label_map: np.ndarray, factor: int) -> None:
    """What the mask model has sampled is still there, a single pixel too."""
    assert np.array_equal(whole(label_map, factor)[factor // 2 :: factor, factor // 2 :: factor], label_map)


@given(maps, st.integers(1, 9), st.data())
def test_a_choice_of_pixels_is_that_choice_of_the_whole(
    label_map: np.ndarray, factor: int, data: st.DataObject
) -> None:
    """Any rows and columns, in any order, and from a crop that holds no more than they need."""
    rows, columns = (
        np.array(data.draw(st.lists(st.integers(0, side * factor - 1), min_size=1, max_size=20)))
        for side in label_map.shape
    )
    expected = whole(label_map, factor)[rows[:, None], columns]
    assert np.array_equal(masks.enlarge(label_map, factor, rows, columns), expected)
    (y0, y1), (x0, x1) = (
        masks.support(pixels, factor, side)
        for pixels, side in zip((rows, columns), label_map.shape, strict=True)
    )
    crop = label_map[y0:y1, x0:x1]
    found = masks.enlarge(crop, factor, rows, columns, origin=(y0, x0), shape=label_map.shape)
    assert np.array_equal(found, expected)


def test_a_window_needs_its_mask_pixels_and_two_more_on_either_side() -> None:
    assert masks.support(np.arange(64, 128), 16, 100) == (2, 10)
    assert masks.support(np.arange(64, 128), 16, 8) == (2, 8)
    assert masks.support(np.arange(16), 16, 100) == (0, 3)
    label_map = np.zeros((100, 100), np.uint8)
    with pytest.raises(AssertionError, match="crop"):
        masks.enlarge(label_map[3:], 16, np.arange(64, 128), np.arange(8), (3, 0), label_map.shape)


def test_classes_that_tie_go_to_the_lowest_id() -> None:
    """Between two mask pixels of different classes both weigh the same."""
    line = masks.enlarge(np.array([[7, 2]], np.uint8), 3, np.arange(3), np.arange(6))[1]
    assert line.tolist() == [7, 7, 7, 2, 2, 2]
    assert masks.enlarge(np.array([[7, 2], [2, 7]], np.uint8), 1, np.arange(2), np.arange(2)).tolist() == [
        [7, 2],
        [2, 7],
    ]


def test_a_border_stays_a_border() -> None:
    """The paper's cleaning turns a border into a band of unknown; here 1 and 3 meet with nothing between."""
    label_map = np.ones((8, 8), np.uint8)
    label_map[:, 4:] = 3
    large = whole(label_map, 16)
    assert set(np.unique(large)) == {1, 3}
    assert (np.diff(large.astype(int), axis=1) != 0).sum(axis=1).max() == 1
    assert (large == 3).mean() == pytest.approx(0.5, abs=0.01)


def test_no_third_class_between_two() -> None:
    """2 lies elsewhere in the map, and between 1 and 3 in number: it has no part in their border."""
    label_map = np.ones((12, 12), np.uint8)
    label_map[:8, 6:], label_map[8:] = 3, 2
    assert set(np.unique(whole(label_map, 16)[: 6 * 16])) == {1, 3}


def test_lines_of_one_mask_pixel_survive() -> None:
    label_map = np.zeros((12, 12), np.uint8)
    label_map[:, 4], label_map[6] = 1, 2
    large = whole(label_map, 16)
    assert 14 <= (large[32] == 1).sum() <= 18
    assert 14 <= (large[:, 150] == 2).sum() <= 18


@given(maps, st.integers(1, 16))
def test_no_class_comes_between_others(label_map: np.ndarray, factor: int) -> None:
    """A pixel has the class of one of the four mask pixels around it, however many classes meet: no bands."""
    large = whole(label_map, factor)
    around = []
    for length in label_map.shape:
        before = (2 * np.arange(length * factor) + 1 - factor) // (2 * factor)
        around.append([np.clip(before + step, 0, length - 1) for step in (0, 1)])
    corners = [label_map[np.ix_(rows, columns)] for rows in around[0] for columns in around[1]]
    assert np.any([corner == large for corner in corners], axis=0).all()


def test_a_disc_stays_round() -> None:
    """Its border lies within a third of a mask pixel of the circle; nearest pixels leave steps of 0.6."""
    factor, radius, middle = 16, 10.0, 12.0
    y, x = np.mgrid[:24, :24] + 0.5
    label_map = (np.hypot(y - middle, x - middle) < radius).astype(np.uint8)
    rows, columns = np.mgrid[: 24 * factor, : 24 * factor]
    distance = np.hypot((rows + 0.5) / factor - middle, (columns + 0.5) / factor - middle) - radius

    def off(large: np.ndarray) -> np.ndarray:
        return np.abs(distance[large != (distance < 0)])

    smooth, nearest = off(whole(label_map, factor)), off(np.kron(label_map, np.ones((factor, factor))))
    assert smooth.max() < 0.35
    assert nearest.max() > 0.55
    assert smooth.size < 0.75 * nearest.size


def test_borders_are_smooth() -> None:
    """A diagonal staircase of mask pixels becomes a line: its steps are much shorter than a mask pixel."""
    ends = (whole(np.tri(12, 12, dtype=np.uint8), 16)[32:160] == 1).sum(axis=1)
    assert np.abs(np.diff(ends)).max() <= 4


def test_cut_to_size() -> None:
    assert masks.enlarge(np.zeros((4, 4), np.uint8), 8, np.arange(20), np.arange(31)).shape == (20, 31)


def test_memory_is_flat() -> None:
    """Four times the rows take four times the result and no more."""

    def beyond(rows: int) -> int:
        label_map = np.random.default_rng(0).integers(0, 5, (rows // 16, 32)).astype(np.uint8)
        tracemalloc.start()
        large = masks.enlarge(label_map, 16, np.arange(rows), np.arange(512))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - large.nbytes

    assert beyond(2048) < beyond(512) + 300_000  # the taps' weights: 40 bytes per row and column


@given(maps, st.integers(4, 8), st.integers(1, 4))
def test_the_latent_grid_can_be_enlarged_by_itself(label_map: np.ndarray, factor: int, grid: int) -> None:
    """A strided choice: the label map at the size of the image is never made."""
    rows, columns = (label_maps.grid_pixels(side * factor, grid) for side in label_map.shape)
    on_grid = masks.enlarge(label_map, factor, rows, columns)
    assert np.array_equal(on_grid, label_maps.on_grid(whole(label_map, factor), grid))
