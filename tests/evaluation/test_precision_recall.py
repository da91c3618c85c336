"""Precision, recall, density and coverage: the naive forms, and what they say of bad models."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgen.errors import UserError
from diffgen.evaluation.precision_recall import evaluate_fidelity, precision_recall, too_few


def normal(
    seed: int, count: int = 200, width: int = 5, spread: float = 1.0, shift: float = 0.0
) -> np.ndarray:
    return spread * np.random.default_rng(seed).standard_normal((count, width)) + shift


def naive(real: np.ndarray, synthetic: np.ndarray, k: int) -> tuple[np.ndarray, ...]:
    """Eqs. (10)–(12), and (2) and (3) of Naeem et al. (2020), sample by sample."""

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sqrt(np.square(a - b).sum()))

    def radius(x: np.ndarray, i: int) -> float:
        return sorted(distance(x[i], x[j]) for j in range(len(x)) if j != i)[k - 1]

    radii = [[radius(x, i) for i in range(len(x))] for x in (real, synthetic)]
    inside = np.array([[distance(s, r) <= radii[0][i] for i, r in enumerate(real)] for s in synthetic])
    back = np.array([[distance(s, r) <= radii[1][i] for i, s in enumerate(synthetic)] for r in real])
    return inside.any(axis=1), back.any(axis=1), inside.sum(axis=1) / k, inside.any(axis=0)


@given(st.integers(0, 1000), st.integers(1, 4))
def test_balls_are_those_of_the_equations(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    real, synthetic = rng.standard_normal((12, 3)), rng.standard_normal((9, 3))
    synthetic[:3] = real[:3]  # copies
    real[5] = real[4]
    real, synthetic = np.round(4 * real), np.round(4 * synthetic)  # whole numbers: ties, and exact ones
    found = precision_recall(real, synthetic, k)
    for one, expected in zip(vars(found).values(), naive(real, synthetic, k), strict=True):
        assert one.tolist() == pytest.approx(expected.tolist())


def figures(synthetic: np.ndarray) -> dict[str, float]:
    real = normal(0)
    found = evaluate_fidelity(real, synthetic, np.arange(200), np.arange(len(synthetic)) + 200, count=20)
    return {
        name: getattr(found, name).value for name in ("precision", "recall", "density", "coverage", "kid")
    }


def test_alike_sets_are_good_by_all() -> None:
    found = figures(normal(1))
    assert min(found["precision"], found["recall"], found["coverage"]) > 0.8
    assert found["density"] == pytest.approx(1, abs=0.15)
    assert abs(found["kid"]) < 0.05


@pytest.mark.parametrize(
    ("model", "lost"),
    [
        (normal(1, spread=0.1), ("recall", "coverage")),  # one mode only
        (normal(1, spread=4.0), ("precision", "density", "coverage")),  # under-fitted: too wide
        (normal(1, shift=3.0), ("precision", "recall", "density", "coverage")),
    ],
)
def test_a_bad_model_is_bad_where_it_should_be(model: np.ndarray, lost: tuple[str, ...]) -> None:
    good, bad = figures(normal(1)), figures(model)
    for name in lost:
        assert bad[name] < good[name] / 2, name
    assert bad["kid"] > good["kid"] + 0.1


def test_a_perfect_copy_is_perfect_so_another_figure_has_to_see_it() -> None:
    found = figures(normal(0))
    assert found["precision"] == found["recall"] == found["coverage"] == 1


def test_few_samples_are_warned_of() -> None:
    assert too_few(10_000, 20_000, 1280) is None
    assert "singular" in str(too_few(200, 20_000, 1280))
    assert "singular" not in str(too_few(2000, 20_000, 1280))
    with pytest.raises(UserError, match="too few"):
        precision_recall(normal(0, 3), normal(1), 3)
