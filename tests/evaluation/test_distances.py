"""Blocked distances are those of the naive form, near zero and in ties too."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from diffgen.errors import UserError
from diffgen.evaluation import distances
from diffgen.evaluation.distances import TIE, checked, kth_radii, nearest, within


def naive_nearest(distance: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distance, order, axis=1), order


@pytest.fixture(params=[2**26, 3000], ids=["one block", "many blocks"])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "BLOCK_BYTES", request.param)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_results_are_those_of_the_naive_form(offset: float) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((70, 30)) + offset, rng.standard_normal((90, 30)) + offset
    x[10:15], y[20:30] = y[3:8], y[40:50]  # duplicates, between the sets and inside of one
    wanted = naive_nearest(cdist(x, y), 4)
    found = nearest(x, y, 4)
    assert found.distances == pytest.approx(wanted[0], abs=1e-12)
    assert (found.indices == wanted[1]).all()
    assert (found.distances[10:15, 0] == 0).all()
    own = cdist(y, y)
    np.fill_diagonal(own, np.inf)
    wanted = naive_nearest(own, 3)
    found = nearest(y, y, 3, exclude_self=True)
    assert found.distances == pytest.approx(wanted[0], abs=1e-12)
    assert (found.indices == wanted[1]).all()
    radii = kth_radii(y, 3)
    assert radii == pytest.approx(wanted[0][:, 2], abs=1e-12)
    inside = cdist(x, y) <= radii * (1 + TIE)
    held = within(x, y, radii)
    assert (held.balls == inside.sum(axis=1)).all()
    assert (held.queries == inside.sum(axis=0)).all()


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 3))
def test_ties_go_to_the_first_and_a_ball_holds_its_rim(seed: int, k: int, width: int) -> None:
    """On a small grid of whole numbers nearly all distances are tied."""
    rng = np.random.default_rng(seed)
    x, y = (rng.integers(0, 4, (size, width)).astype(float) for size in (25, 30))
    wanted = naive_nearest(cdist(x, y), k)
    found = nearest(x, y, k)
    assert (found.distances == wanted[0]).all()
    assert (found.indices == wanted[1]).all()
    radii = kth_radii(y, k)
    inside = cdist(x, y) <= radii
    held = within(x, y, radii)
    assert (held.balls == inside.sum(axis=1)).all()
    assert (held.queries == inside.sum(axis=0)).all()


def test_what_rounding_hides_is_computed_again() -> None:
    """Forty keys so near that |a|² + |b|² − 2ab is nothing but rounding; the order is known."""
    rng = np.random.default_rng(0)
    keys = rng.standard_normal((60, 200)) * 1e4
    steps = rng.permutation(40)
    keys[:40] = keys[0]
    keys[:40, 0] += steps * 1e-6
    query = keys[[int(np.flatnonzero(steps == 0)[0])]]
    found = nearest(query, keys, 5)
    assert found.indices[0].tolist() == [int(np.flatnonzero(steps == n)[0]) for n in range(5)]
    assert found.distances[0] == pytest.approx(np.arange(5) * 1e-6, abs=1e-11)
    assert found.distances[0, 0] == 0
    held = within(query, keys, np.full(60, 2.5e-6))
    assert held.balls.tolist() == [3]


def test_a_ball_holds_a_copy_of_the_sample_that_it_reaches_to() -> None:
    """A copy is as far as the original: a tie for every sample whose neighbour is copied."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 50)).astype(np.float32).astype(float)
    radii, neighbour = kth_radii(x, 1), nearest(x, x, 1, exclude_self=True).indices[:, 0]
    for k in range(200):
        assert within(x[[neighbour[k]]].copy(), x[[k]], radii[[k]]).balls.tolist() == [1]
        assert within(x[[neighbour[k]]], x[[k]], radii[[k]] * (1 - 1e-6)).balls.tolist() == [0]


def test_keys_of_the_same_group_are_left_out() -> None:
    rng = np.random.default_rng(0)
    x, groups = rng.standard_normal((60, 5)), rng.integers(0, 6, 60)
    distance = np.where(groups[:, None] == groups, np.inf, cdist(x, x))
    wanted = naive_nearest(distance, 2)
    found = nearest(x, x, 2, apart=(groups, groups))
    assert found.distances == pytest.approx(wanted[0], abs=1e-12)
    assert (found.indices == wanted[1]).all()
    with pytest.raises(UserError, match="too few"):
        nearest(x, x, apart=(groups * 0, groups * 0))


def test_a_block_is_no_larger_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "BLOCK_BYTES", 8 * 50 * 7)
    x, y = torch.rand(40, 3, dtype=torch.float64), torch.rand(50, 3, dtype=torch.float64)
    blocks = list(distances._blocks(x, y))
    assert [len(squared) for _, squared, _ in blocks] == [7] * 5 + [5]
    assert np.concatenate([np.arange(40)[rows] for rows, _, _ in blocks]).tolist() == list(range(40))


def test_an_error_bound_bounds_the_error() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 400)), rng.standard_normal((60, 400))
    ((_, squared, error),) = distances._blocks(torch.from_numpy(x), torch.from_numpy(y))
    off = np.abs(squared.numpy() - cdist(x, y, "sqeuclidean"))
    assert 0 < off.max() < error.min()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_named(value: float) -> None:
    x = np.zeros((5, 3))
    x[3, 1] = x[4, 0] = value
    with pytest.raises(UserError, match=r"real: row 3 .* \(2 such rows\)"):
        checked(x, "real")
    for call in (lambda: nearest(x, x), lambda: within(np.zeros((2, 3)), x, np.ones(5))):
        with pytest.raises(UserError, match="row 3"):
            call()


def test_other_mistakes_are_named() -> None:
    x = np.random.default_rng(0).standard_normal((4, 3))
    with pytest.raises(UserError, match="3 others of 4 samples are too few for 4 neighbours"):
        kth_radii(x, 4)
    with pytest.raises(UserError, match="4 of 4 samples are too few for 5"):
        nearest(x, x, 5)
    with pytest.raises(UserError, match="3 and 2 dimensions"):
        nearest(x, x[:, :2])
    with pytest.raises(UserError, match=r"shape \(3,\)"):
        checked(x[0], "real")
    with pytest.raises(UserError, match="synthetic: 4 samples are too few, at least 5"):
        checked(x, "synthetic", 5)
