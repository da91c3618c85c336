"""Distances of distributions: against libraries, closed forms and naive ones; nothing between alike sets."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from diffgen.errors import UserError
from diffgen.evaluation.bootstrap import estimate, resampled
from diffgen.evaluation.divergences import fid, frechet, inception_score, kid, kid_subsets, principal

SOURCES = np.repeat(np.arange(40), 3)


class Rows(torch.nn.Module):
    """Takes "pictures" (N, d, 1, 1) for the features they hold."""

    num_features = 6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


def as_pictures(features: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(features)[:, :, None, None]


def clustered(seed: int, shift: float = 0.0, width: int = 8) -> np.ndarray:
    """(120, width): three alike samples of each of 40 sources."""
    rng = np.random.default_rng(seed)
    of_sources = np.repeat(rng.standard_normal((40, width)), 3, axis=0)
    return of_sources + 0.1 * rng.standard_normal((120, width)) + shift


def ones(*sizes: int) -> tuple[np.ndarray, ...]:
    return tuple(np.ones((1, size)) for size in sizes)


def test_kid_is_unbiased_where_samples_of_a_source_are_alike() -> None:
    values = [
        kid(clustered(2 * k), clustered(2 * k + 1), (SOURCES, SOURCES + 40), ones(120, 120))[0]
        for k in range(200)
    ]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)


@pytest.mark.parametrize("shift", [1.0, 2.0])
def test_kid_and_frechet_see_a_shift(shift: float) -> None:
    a, b = clustered(0), clustered(1, shift)
    weights = resampled([SOURCES, SOURCES + 40], 50)
    found = estimate(kid(a, b, (SOURCES, SOURCES + 40), (weights[0], weights[1])))
    assert found.low > 0
    assert frechet(a, b, ones(120, 120))[0] > 8 * shift**2 / 2


def test_frechet_of_known_normal_distributions() -> None:
    """‖μ‖² + Σ (σ_a − σ_b)² where both covariances are diagonal."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((50_000, 3)), rng.standard_normal((50_000, 3)) * [1, 2, 3] + [0, 0, 1]
    assert frechet(a, b, ones(50_000, 50_000))[0] == pytest.approx(1 + 1 + 4, abs=0.15)
    assert frechet(a, a, ones(50_000, 50_000))[0] == pytest.approx(0, abs=1e-6)


def test_a_weight_of_two_is_a_sample_twice() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 30, 4))
    twice = np.ones((1, 30))
    twice[0, :10] = 2
    doubled = np.concatenate([a, a[:10]])
    alone, same = np.arange(30), np.concatenate([np.arange(30), np.arange(10)])
    weighted = kid(a, b, (alone, alone + 50), (twice, np.ones((1, 30))))
    assert weighted == pytest.approx(kid(doubled, b, (same, alone + 50), ones(40, 30)))


@pytest.mark.parametrize(("samples", "width"), [(40, 6), (9, 30)])
def test_fid_is_the_form_with_a_root_of_matrices(samples: int, width: int) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((samples, width)), 2 * rng.standard_normal((samples + 3, width)) + 1
    covariances = [np.cov(x.T) for x in (a, b)]
    root = sqrtm(covariances[0] @ covariances[1]).real
    mean = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    naive = mean + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert fid(a, b) == pytest.approx(naive, abs=1e-6 if samples > width else 1e-4)
    assert fid(a, a) == pytest.approx(0, abs=1e-9)
    assert fid(a, a + 3) == pytest.approx(9 * width)


def test_fid_is_torchmetrics_s() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((200, 6)), rng.standard_normal((150, 6)) @ rng.standard_normal((6, 6))
    theirs = FrechetInceptionDistance(feature=Rows(), input_img_size=(6, 1, 1)).set_dtype(torch.float64)
    theirs.update(as_pictures(a), real=True)
    theirs.update(as_pictures(b), real=False)
    assert fid(a, b) == pytest.approx(float(theirs.compute()), abs=1e-6)


def test_kid_is_torchmetrics_s() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((60, 6)), rng.standard_normal((60, 6)) + 0.3
    theirs = KernelInceptionDistance(feature=Rows(), subsets=2, subset_size=60).set_dtype(torch.float64)
    theirs.update(as_pictures(a), real=True)
    theirs.update(as_pictures(b), real=False)
    expected = float(theirs.compute()[0])
    found = kid_subsets(a, b, subsets=2, size=60)
    assert found.mean == pytest.approx(expected, abs=1e-6)
    assert found.deviation == pytest.approx(0, abs=1e-9)  # a subset that is the whole
    alone = np.arange(60), np.arange(60) + 60
    assert kid(a, b, alone, ones(60, 60))[0] == pytest.approx(expected, abs=1e-6)


def test_inception_score_is_torchmetrics_s() -> None:
    logits = 3 * np.random.default_rng(2).standard_normal((90, 6))
    theirs = InceptionScore(feature=Rows(), splits=1)
    theirs.update(as_pictures(logits))
    assert inception_score(logits, splits=1).mean == pytest.approx(float(theirs.compute()[0]), abs=1e-5)


def test_inception_score_has_its_bounds() -> None:
    """Sure of one class each, all alike often: the number of classes. Unsure of all: one."""
    sure = 1e3 * np.eye(5)[np.arange(50) % 5]
    assert inception_score(sure, splits=1).mean == pytest.approx(5)
    assert inception_score(np.zeros((50, 5))).mean == pytest.approx(1)


def test_principal_components_are_those_of_the_svd() -> None:
    for shape in ((50, 7), (6, 20)):
        x = np.random.default_rng(3).standard_normal(shape) @ np.diag(np.arange(1, shape[1] + 1))
        _, _, rows = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
        found = principal(x, 3)
        assert found.shape == (shape[1], 3)
        assert np.abs((rows[:3] * found.T).sum(axis=1)) == pytest.approx(1, abs=1e-6)


def test_nan_and_too_few_are_named() -> None:
    x = np.ones((20, 3))
    x[4, 1] = np.nan
    with pytest.raises(UserError, match="row 4"):
        fid(np.ones((20, 3)), x)
    with pytest.raises(UserError, match="too few"):
        inception_score(np.ones((4, 3)))
