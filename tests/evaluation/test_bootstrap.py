"""Intervals hold what they should as often as they say, and whole sources are drawn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgen.errors import UserError
from diffgen.evaluation.bootstrap import (
    Estimate,
    MeanStd,
    as_json,
    estimate,
    jackknifed,
    left_out,
    mean_of,
    of_sources,
    off,
    ratio,
    resampled,
)


@given(st.integers(0, 50))
def test_sets_of_one_source_are_drawn_together(seed: int) -> None:
    first, again, other = resampled([np.arange(5), np.repeat(np.arange(5), 2), np.arange(7) + 5], 3, seed)
    assert (first[0] == 1).all()
    assert (again[:, ::2] == first).all()
    assert (again[:, 1::2] == first).all()
    assert (first.sum(axis=1) == 5).all()
    assert (other.sum(axis=1) == 7).all()


def test_an_interval_holds_the_mean_of_its_sources_as_often_as_it_says() -> None:
    sources, hits, of_samples = np.repeat(np.arange(40), 3), 0, 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        values = rng.standard_normal(40).repeat(3) + 0.1 * rng.standard_normal(120)
        (weights,) = resampled([sources], 200, seed)
        found = estimate(mean_of(values, weights))
        hits += found.low < 0 < found.high
        (weights,) = resampled([np.arange(120)], 200, seed)
        found = estimate(mean_of(values, weights))
        of_samples += found.low < 0 < found.high
    assert 86 <= hits <= 100
    assert of_samples < 86  # drawing single samples claims too much


def test_the_bias_of_bootstraps_is_taken_off() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0])
    assert estimate(values) == Estimate(1.0, pytest.approx(0.05), pytest.approx(1.95))
    assert estimate(values, times=10, centred=False) == Estimate(
        10.0, pytest.approx(20.5), pytest.approx(39.5)
    )


def test_a_bias_that_falls_with_the_number_is_taken_off() -> None:
    """The square of a mean is too large by the variance of the mean."""
    sources, hits, taken = np.repeat(np.arange(40), 2), 0, []
    for seed in range(100):
        values = 1 + np.random.default_rng(seed).standard_normal(40).repeat(2)
        (weights,) = left_out([sources], seed)
        squares = mean_of(values, weights) ** 2
        found = jackknifed(squares)
        hits += found.low <= 1 <= found.high
        taken.append(squares[0] - found.value)
    assert np.mean(taken) == pytest.approx(1 / 40, rel=0.1)
    assert 90 <= hits <= 99


def test_groups_are_left_out_in_turn() -> None:
    first, second = left_out([np.arange(60) // 2, 30 + np.arange(12)])
    assert first.shape == (13, 60)  # as many groups as the smaller set has sources
    assert (first[1:] == 0).sum(axis=0).tolist() == [1] * 60
    assert (second[1:] == 0).sum(axis=0).tolist() == [1] * 12


def test_a_ratio_of_figures() -> None:
    found = ratio(Estimate(0.5, 0.4, 0.6), Estimate(1.0, 1.0, 1.0))
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.4, 0.6))
    wider = ratio(Estimate(0.5, 0.4, 0.6), Estimate(1.0, 0.9, 1.1))
    assert wider.low < 0.4 < 0.6 < wider.high
    both = ratio(Estimate(0.5, 0.4, 0.6), Estimate(1.0, 0.9, 1.1), 0.8)
    assert both.high - both.low < wider.high - wider.low
    assert ratio(Estimate(0.0, 0.0, 0.1), Estimate(0.0, 0.0, 0.1)).high == np.inf
    assert ratio(Estimate(0.0, 0.0, 0.1), Estimate(0.5, 0.4, 0.6)).low == 0


def test_how_far_off_a_difference_is() -> None:
    drawn = np.random.default_rng(0).standard_normal((401, 2)) * 0.1 + [0.0, -1.0]
    drawn[0] = [0.05, -1.0]
    near, far = off(drawn, 100)
    assert near.low == 0
    assert far.value == 1
    assert far.low == pytest.approx(0.8, abs=0.03)
    assert off(drawn, 100, among=10)[1].low < far.low


def test_what_is_not_a_number_has_no_part_in_a_mean() -> None:
    values, weights = np.array([1.0, np.nan, 4.0]), np.array([[1.0, 1.0, 1.0], [2.0, 5.0, 1.0]])
    assert mean_of(values, weights).tolist() == [2.5, 2.0]


def test_figures_are_written_and_read() -> None:
    found = as_json({"a": Estimate(1.0, 0.5, 1.5), "b": [MeanStd(2.0, 0.1), "text"]})
    assert found == {"a": [1.0, 0.5, 1.5], "b": [[2.0, 0.1], "text"]}
    assert str(Estimate(0.12345, 0.1, 0.2)) == "0.123 [0.1, 0.2]"
    assert str(MeanStd(0.12345, 0.0123)) == "0.123 ± 0.012"


def test_sources_are_one_a_sample_and_more_than_one() -> None:
    assert of_sources(np.array([3, 3, 4]), 3, "real").tolist() == [3, 3, 4]
    with pytest.raises(UserError, match="real: 4 samples"):
        of_sources(np.array([3, 3, 4]), 4, "real")
    with pytest.raises(UserError, match="real: all samples are of one source"):
        of_sources(np.array([3, 3]), 2, "real")
