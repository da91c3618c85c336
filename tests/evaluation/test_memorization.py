"""Memorization: the naive forms; planted copies and under-fitted models move each figure as they should."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from diffgen.errors import UserError
from diffgen.evaluation.distances import nearest
from diffgen.evaluation.memorization import (
    Memorization,
    Partition,
    Reference,
    authentic,
    z_u,
)
from diffgen.evaluation.near_duplicates import near_duplicates
from tests.evaluation.crimes import copied, features, textures

TRAINING, HELD_OUT, FRESH = (textures(160, seed) for seed in range(3))


def judged(pictures: np.ndarray) -> Memorization:
    x, own, out = features(pictures), features(TRAINING), features(HELD_OUT)
    numbers = np.arange(160)
    return Reference(own, out, numbers, numbers + 320).judged(x, numbers[: len(x)] + 160, count=20)


@pytest.fixture(scope="module")
def honest() -> Memorization:
    return judged(FRESH)


def test_an_honest_model_is_like_held_out_tissue(honest: Memorization) -> None:
    assert honest.authenticity_held_out is not None
    assert honest.data_copying is not None
    assert honest.authenticity.value == pytest.approx(honest.authenticity_held_out.value, abs=0.15)
    assert abs(honest.data_copying.c_t.value) < 3


@pytest.mark.parametrize("crime", ["exact", "flipped", "turned", "recoloured", "jpeg"])
def test_copies_are_seen(crime: str, honest: Memorization) -> None:
    found = judged(copied(TRAINING[::2], crime))
    assert found.authenticity.value < honest.authenticity.value - 0.2
    assert found.data_copying is not None
    assert found.data_copying.c_t.value < -3
    hits = found.nearest.indices[:, 0] == np.arange(0, 160, 2)
    assert hits.mean() > (0.5 if crime in {"recoloured", "jpeg"} else 0.99)


def test_an_under_fitted_model_is_far_from_its_training_set(honest: Memorization) -> None:
    noise = np.random.default_rng(0).integers(0, 256, TRAINING[:80].shape, np.uint8)
    blurred = (TRAINING[:80].astype(float) * 0.3 + noise * 0.7).astype(np.uint8)
    found = judged(blurred)
    assert found.data_copying is not None
    assert found.data_copying.c_t.value > 3
    assert found.authenticity.value >= honest.authenticity.value


def test_authenticity_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    training, synthetic = rng.standard_normal((30, 4)), rng.standard_normal((25, 4))
    synthetic[:5] = training[:5]
    found = authentic(nearest(synthetic, training), nearest(training, training, exclude_self=True))
    for g, one in zip(synthetic, found, strict=True):
        distances = np.linalg.norm(training - g, axis=1)
        i = int(distances.argmin())
        others = np.linalg.norm(np.delete(training, i, axis=0) - training[i], axis=1)
        assert one == (distances[i] > others.min())
    assert not found[:5].any()


def test_z_of_u_is_scipy_s() -> None:
    """Its p is of the same normal approximation, ties corrected, without continuity."""
    rng = np.random.default_rng(0)
    held_out, generated = rng.integers(0, 9, 40).astype(float), rng.integers(2, 11, 30).astype(float)
    (z,) = z_u(held_out, generated, np.ones((1, 40)), np.ones((1, 30)))
    expected = mannwhitneyu(
        generated, held_out, alternative="greater", method="asymptotic", use_continuity=False
    )
    assert norm.sf(z) == pytest.approx(expected.pvalue, rel=1e-6)


def test_c_t_is_the_mean_of_its_cells() -> None:
    """Eq. (14), with cells that are plain: three heaps far apart."""
    rng = np.random.default_rng(0)
    heaps = 100.0 * np.eye(3)

    def drawn(count: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        where = rng.integers(0, 3, count)
        return heaps[where] + spread * rng.standard_normal((count, 3)), where

    training, held_out, generated = drawn(300), drawn(240), drawn(200, 0.5)
    cells = Partition(training[0], held_out[0], np.arange(240))
    found = cells.data_copying(generated[0], np.arange(200) + 240, count=5)
    expected = 0.0
    for cell in range(3):
        one, other = (s[0][s[1] == cell] for s in (held_out, generated))
        d = [np.array([np.linalg.norm(training[0] - x, axis=1).min() for x in s]) for s in (one, other)]
        u = (d[1][:, None] > d[0][None, :]).sum()
        n, m = len(one), len(other)
        expected += n / 240 * (u - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12)
    assert found.c_t.value == pytest.approx(expected, abs=1e-6)
    assert len(found.cells) == 3
    with pytest.raises(UserError, match="no cell holds enough"):
        Partition(training[0], held_out[0][:9], np.arange(9)).data_copying(generated[0], np.arange(200))


def test_a_generator_that_repeats_itself_is_seen() -> None:
    rng = np.random.default_rng(0)
    real, fresh = rng.standard_normal((2, 200, 6))
    repeated = np.concatenate([fresh[:150], fresh[:50] + 1e-4])
    numbers = np.arange(200)
    honest = near_duplicates(real, fresh, numbers, numbers)
    found = near_duplicates(real, repeated, numbers, numbers)
    assert honest.share.value < 0.06
    assert found.share.value == pytest.approx(0.5, abs=0.06)
    assert found.expected.value == pytest.approx(0.01, abs=0.01)
