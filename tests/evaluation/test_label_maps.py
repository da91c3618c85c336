import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from diffgen.evaluation.bootstrap import as_json
from diffgen.evaluation.label_maps import (
    MapStatistics,
    compare,
    count_edges,
    count_regions,
    counted,
    statistics,
)

CLASSES = 4
label_maps = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3))
sets = st.lists(label_maps, min_size=1, max_size=4)


def measure(maps: list[np.ndarray], classes: int, pixel_um: float) -> MapStatistics:
    return statistics(counted(maps, classes), pixel_um)


def test_figures_of_a_map_by_hand() -> None:
    """Two squares of class 1 on class 2, a row of unknown below: 4 × 6 pixels of 500 µm are 6 mm²."""
    label_map = np.array(
        [
            [1, 2, 2, 2, 1, 1],
            [2, 2, 2, 2, 1, 1],
            [2, 2, 2, 2, 2, 2],
            [0, 0, 0, 0, 0, 0],
        ],
        np.uint8,
    )
    found = measure([label_map], CLASSES, 500.0)
    assert found.unknown == 6 / 24
    np.testing.assert_allclose(found.shares, [0, 5 / 18, 13 / 18, 0])
    np.testing.assert_allclose(found.regions, [1 / 6, 2 / 6, 1 / 6, 0])
    np.testing.assert_allclose(found.region_um2, [6 * 500**2, 2.5 * 500**2, 13 * 500**2, 0])
    edges = np.array([6, 2 + 4, 6 + 6, 0])
    np.testing.assert_array_equal(count_edges(label_map, CLASSES), edges)
    np.testing.assert_allclose(found.boundary, edges * 0.5 / 6)


@given(label_maps)
def test_regions_are_counted_as_by_flood_fill(label_map: np.ndarray) -> None:
    counts = np.zeros(CLASSES, int)
    todo = {(int(y), int(x)) for y, x in np.ndindex(label_map.shape)}
    while todo:
        stack = [todo.pop()]
        counts[label_map[stack[0]]] += 1
        while stack:
            y, x = stack.pop()
            for other in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if other in todo and label_map[other] == label_map[y, x]:
                    todo.remove(other)
                    stack.append(other)
    np.testing.assert_array_equal(count_regions(label_map, CLASSES), counts)


@given(sets)
def test_a_set_against_itself_has_no_error(maps: list[np.ndarray]) -> None:
    found = compare(maps, maps, CLASSES, 8.0)
    assert found.largest_share_error == found.mean_share_error == 0
    assert found.region_error == found.boundary_error == 0
    assert found.real.unknown == found.generated.unknown


@given(sets, st.integers(0, 7))
def test_flips_and_turns_change_nothing(maps: list[np.ndarray], turn: int) -> None:
    turned = [np.rot90(m, turn % 4)[:: 1 if turn < 4 else -1] for m in maps]
    one, other = (measure(m, CLASSES, 8.0) for m in (maps, turned))
    for name in ("shares", "regions", "region_um2", "boundary"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name))


@given(sets, st.floats(0.25, 16))
def test_the_unit_of_length(maps: list[np.ndarray], um: float) -> None:
    """Maps at twice the pixel size: half the boundary and a quarter of the regions per mm²."""
    one, other = (measure(maps, CLASSES, scale * um) for scale in (1, 2))
    np.testing.assert_allclose(one.boundary, 2 * other.boundary)
    np.testing.assert_allclose(one.regions, 4 * other.regions)
    np.testing.assert_allclose(4 * one.region_um2, other.region_um2)


@given(sets)
def test_shares_sum_to_one_without_unknown(maps: list[np.ndarray]) -> None:
    found = measure(maps, CLASSES, 1.0)
    assert found.shares[0] == 0
    assert found.shares.sum() == pytest.approx(1.0 if found.unknown < 1 else 0.0)


def test_errors_see_what_they_are_for() -> None:
    real = [np.kron(np.array([[1, 2], [2, 1]]), np.ones((8, 8))).astype(np.uint8)] * 4
    lost = [np.full((16, 16), 1, np.uint8)] * 4  # one class only
    found = compare(real, lost, CLASSES, 8.0)
    assert found.largest_share_error == found.mean_share_error == 0.5
    np.testing.assert_allclose(found.boundary_ratio, [np.nan, 0, 0, np.nan])
    np.testing.assert_allclose(found.region_ratio, [np.nan, 0.5, 0, np.nan])
    assert found.region_error == 0.75

    rng = np.random.default_rng(0)
    noise = [rng.integers(1, 3, (16, 16)).astype(np.uint8) for _ in range(4)]  # the same shares, no regions
    found = compare(real, noise, CLASSES, 8.0)
    assert found.largest_share_error < 0.05
    assert found.region_error > 3
    assert found.boundary_error > 3

    banded = [m.copy() for m in real]
    for m in banded:
        m[7:9] = 0  # a border that became a band
    found = compare(real, banded, CLASSES, 8.0)
    assert found.largest_share_error == 0
    assert found.generated.unknown == 1 / 8
    assert found.real.unknown == 0


def test_a_class_that_only_the_generator_has_is_an_error_of_the_shares() -> None:
    found = compare([np.ones((4, 4), np.uint8)], [np.full((4, 4), 3, np.uint8)], CLASSES, 8.0)
    assert found.largest_share_error == found.mean_share_error == 1
    assert np.isnan(found.region_ratio[3])


def test_json_is_plain() -> None:
    tree = as_json(compare([np.ones((4, 4), np.uint8)], [np.ones((4, 4), np.uint8)], CLASSES, 8.0))
    assert json.loads(json.dumps(tree, allow_nan=False))["region_ratio"] == [None, 1, None, None]


def test_an_id_that_is_too_high_is_an_error() -> None:
    with pytest.raises(ValueError, match="class id 7"):
        measure([np.full((2, 2), 7, np.uint8)], CLASSES, 8.0)
