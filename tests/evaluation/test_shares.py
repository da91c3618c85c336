"""Exact intervals are those of scipy where each sample is a source, and wider where samples share one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from diffgen.evaluation.shares import exact_share


@given(st.lists(st.booleans(), min_size=2, max_size=200))
def test_a_sample_a_source_is_clopper_and_pearson(inside: list[bool]) -> None:
    found = exact_share(np.array(inside), np.arange(len(inside)))
    wanted = binomtest(sum(inside), len(inside)).proportion_ci()
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_none_of_a_hundred_may_be_3_6_percent_and_samples_of_one_source_count_once() -> None:
    none = np.zeros(100, bool)
    assert exact_share(none, np.arange(100)).high == pytest.approx(0.0362, abs=1e-4)
    assert exact_share(none, np.arange(100) // 10).high == pytest.approx(0.308, abs=1e-3)
