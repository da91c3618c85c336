"""Intervals of shares and counts: the exact ones where samples are independent, wider where they are not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from diffgen.evaluation.shares import mean_count, share, variance_over


def test_none_of_a_hundred_is_up_to_nearly_four_in_a_hundred() -> None:
    found = share(np.zeros(100, bool), np.arange(100))
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(0.0362, abs=1e-4)
    assert share(np.zeros(100, bool), np.arange(100) // 10).high == pytest.approx(0.308, abs=1e-3)
    of_five = share(np.zeros(100, bool), np.arange(100) % 5)
    assert of_five.high > 0.5  # a hundred crops of five slides are five


@given(st.lists(st.booleans(), min_size=2, max_size=200))
def test_a_sample_a_source_is_clopper_and_pearson(inside: list[bool]) -> None:
    found = share(np.array(inside), np.arange(len(inside)))
    wanted = binomtest(sum(inside), len(inside)).proportion_ci()
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_samples_of_one_source_count_as_one() -> None:
    inside = np.random.default_rng(0).random(40) < 0.5
    once, often = share(inside, np.arange(40)), share(inside.repeat(5), np.arange(40).repeat(5))
    assert (often.value, often.low, often.high) == pytest.approx((once.value, once.low, once.high), abs=0.02)
    assert often.low < once.low < once.high < often.high
    assert variance_over(inside.astype(float), np.arange(40)) == pytest.approx(inside.var(ddof=1) / 40)


def test_a_mean_of_counts_stays_above_nothing() -> None:
    counts = np.random.default_rng(0).poisson(2.0, 200)
    found = mean_count(counts, float(counts.var() / 200), 200)
    assert found.low == pytest.approx(found.value - 0.2, abs=0.03)
    assert found.high == pytest.approx(found.value + 0.2, abs=0.03)
    none = mean_count(np.zeros(200), 0.0, 200)
    assert (none.low, none.value) == (0, 0)
    assert none.high == pytest.approx(3.7 / 200, abs=1e-4)
