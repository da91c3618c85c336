import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffgen.sampling import masks

maps = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 9))


@given(maps, st.integers(10, 40))
def test_bits_are_lossless(label_map: np.ndarray, classes: int) -> None:
    """Promise 7, for the mask model's own representation."""
    bits = masks.to_bits(label_map, classes)
    assert set(np.unique(bits)) <= {-1.0, 1.0}
    assert np.array_equal(masks.from_bits(bits, classes), label_map)
    assert np.array_equal(masks.from_bits(bits * 0.01, classes), label_map)


@given(hnp.arrays(np.float32, (3, 4, 4), elements=st.floats(-3, 3, width=32)), st.integers(5, 8))
def test_any_bits_give_a_class_that_exists(bits: np.ndarray, classes: int) -> None:
    assert masks.from_bits(bits, classes).max() < classes


@pytest.mark.parametrize(("classes", "bits"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (256, 8)])
def test_number_of_bits(classes: int, bits: int) -> None:
    assert masks.num_bits(classes) == bits


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


@given(maps, st.integers(1, 8))
def test_enlarging_adds_no_class_and_keeps_flat_areas(label_map: np.ndarray, factor: int) -> None:
    height, width = (side * factor for side in label_map.shape)
    large = masks.enlarge(label_map, factor, height, width)
    assert large.shape == (height, width)
    assert set(np.unique(large)) <= set(np.unique(label_map))
    flat = np.full((3, 3), 4, np.uint8)
    assert (masks.enlarge(flat, factor, 3 * factor, 3 * factor) == 4).all()


def test_a_border_stays_a_border() -> None:
    """The paper's cleaning turns a border into a band of unknown; here 1 and 3 meet with nothing between."""
    label_map = np.ones((8, 8), np.uint8)
    label_map[:, 4:] = 3
    large = masks.enlarge(label_map, 16, 128, 128)
    assert set(np.unique(large)) == {1, 3}
    assert (np.diff(large.astype(int), axis=1) != 0).sum(axis=1).max() == 1
    assert (large == 3).mean() == pytest.approx(0.5, abs=0.01)


def test_borders_are_smooth() -> None:
    """A diagonal staircase of mask pixels becomes a line: its steps are much shorter than a mask pixel."""
    label_map = np.tri(12, 12, dtype=np.uint8)
    large = masks.enlarge(label_map, 16, 192, 192)
    ends = (large[32:160] == 1).sum(axis=1)
    assert np.abs(np.diff(ends)).max() <= 4


def test_cut_to_size() -> None:
    assert masks.enlarge(np.zeros((4, 4), np.uint8), 8, 20, 31).shape == (20, 31)


def test_latent_grid_takes_block_centres() -> None:
    label_map = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert masks.on_grid(label_map, 4).tolist() == [[18, 22], [50, 54]]
    assert masks.on_grid(label_map, 1) is not None
    assert np.array_equal(masks.on_grid(label_map, 1), label_map)
