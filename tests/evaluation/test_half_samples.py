"""Figures of parts of two sets are those of the parts alone, and tell how the figures vary."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgen.evaluation import distances, half_samples
from diffgen.evaluation.bootstrap import halved
from diffgen.evaluation.half_samples import of_parts
from diffgen.evaluation.precision_recall import precision_recall


@given(st.integers(0, 100), st.integers(1, 4))
def test_parts_are_as_if_they_were_all(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    real, synthetic = rng.standard_normal((30, 3)), rng.standard_normal((26, 3)) + 0.5
    weights = halved([np.arange(30) // 2, 50 + np.arange(26)], 5, seed)
    found = np.array(of_parts(real, synthetic, weights, k))
    for row, (of_real, of_synthetic) in enumerate(zip(*weights, strict=True)):
        alone = precision_recall(real[of_real > 0], synthetic[of_synthetic > 0], k)
        means = (alone.precise, alone.recalled, alone.density, alone.covered)
        assert found[:, row] == pytest.approx([one.mean() for one in means])


def test_halves_have_half_of_the_sources_once_each() -> None:
    real, synthetic = halved([np.arange(40) // 4, 10 + np.arange(9)], 50)
    assert set(np.unique(real)) == {0, 1}
    assert (real[0] == 1).all()
    assert (real[1:].sum(axis=1) == 20).all()
    assert (synthetic[1:].sum(axis=1) == 5).all()
    assert (real.reshape(51, 10, 4).std(axis=2) == 0).all()


def test_of_many_pairs_some_queries_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    real, synthetic = rng.standard_normal((60, 2)), 0.1 * rng.standard_normal((64, 2))
    pairs = distances.pairs_within(synthetic, real, np.full(60, 99.0), 1000)
    assert pairs.step == 4
    assert set(pairs.queries.tolist()) == set(range(0, 64, 4))
    weights = halved([np.arange(60), 60 + np.arange(64)], 20)
    every = of_parts(real, synthetic, weights, 3)
    monkeypatch.setattr(half_samples, "MOST_PAIRS", 800)
    some = of_parts(real, synthetic, weights, 3)
    assert some.precision.mean() == pytest.approx(every.precision.mean(), abs=0.2)
