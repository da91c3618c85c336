"""Distances between the distributions that two sets of features are of: Fréchet, kernel, Inception Score.

Features (N, d) have no unit, and none of these figures means anything but beside another of the same
network, the same number of samples and the same pictures' sizes and encoding. Forms with a `weights` argument
give a value for each row of weights (`bootstrap`), so the intervals are over sources.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp
from threadpoolctl import threadpool_limits

from diffgen.evaluation.bootstrap import MeanStd, Weights
from diffgen.evaluation.distances import BLOCK_BYTES, FeatureMatrix, checked

COMPONENTS = 64
"""Dimensions of the Fréchet distance that has an interval: few enough for some hundred samples."""
KID_SUBSETS, KID_SIZE = 100, 1000  # as Bińkowski et al. (2018) and the libraries
ONE_THREAD = threadpool_limits.wrap(limits=1)
"""For what takes a second on one thread: where other work has the cores, the threads of OpenBLAS and OpenMP
wait for each other at every step, which took twenty times that."""
SPLITS = 10  # of the Inception Score, as Salimans et al. (2016)


@ONE_THREAD
def fid(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Squared Fréchet distance ‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2(Σ_aΣ_b)^½) (Heusel et al., 2017).

    With Σ = RᵀR the last trace is the sum of the singular values of R_a R_bᵀ: no root of a matrix is taken,
    and fewer samples than dimensions are no special case.
    """
    a, b = checked(a, "first set", 2), checked(b, "second set", 2)
    roots = [np.linalg.qr(x - x.mean(axis=0), mode="r") / np.sqrt(len(x) - 1) for x in (a, b)]
    cross = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    traces = sum(np.square(root).sum() for root in roots)
    return float(np.square(a.mean(axis=0) - b.mean(axis=0)).sum() + traces - 2 * cross)


@ONE_THREAD
def principal(features: FeatureMatrix, number: int) -> FeatureMatrix:
    """(d, number): the first principal components of features (N, d); fewer where N or d is less."""
    from sklearn.decomposition import PCA

    tall = len(features) > features.shape[1]
    solver = "covariance_eigh" if tall else "full"
    found = PCA(min(number, *features.shape), svd_solver=solver).fit(features)
    return np.ascontiguousarray(found.components_.T)


@ONE_THREAD
def frechet(a: FeatureMatrix, b: FeatureMatrix, weights: Sequence[Weights]) -> NDArray[np.float64]:
    """(B,): squared Fréchet distance of the normal distributions of two sets (N, d), d much less than N."""
    return np.array(
        [squared_frechet(*_moments(a, u), *_moments(b, v)) for u, v in zip(*weights, strict=True)]
    )


def _moments(x: FeatureMatrix, weights: NDArray[np.float64]) -> tuple[Any, Any]:
    return np.average(x, axis=0, weights=weights), np.atleast_2d(np.cov(x.T, aweights=weights))


def squared_frechet(mean_a: Any, cov_a: Any, mean_b: Any, cov_b: Any) -> float:
    """Of two normal distributions by their means (d,) and covariances (d, d)."""
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
    return float(np.square(mean_a - mean_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def kernel(a: FeatureMatrix, b: FeatureMatrix) -> NDArray[np.float64]:
    """(N_a, N_b): (a·b / d + 1)³ (Bińkowski et al., 2018)."""
    found = a @ b.T / a.shape[1] + 1
    return found * found * found


def kid(
    a: FeatureMatrix,
    b: FeatureMatrix,
    of: Sequence[NDArray[np.intp]],
    weights: Sequence[Weights],
) -> NDArray[np.float64]:
    """(B,): unbiased squared MMD of two sets (N, d), cubic kernel; pairs of one source are left out.

    `of` are the sources (N,) of each set.
    """

    def mean(i: int, j: int) -> NDArray[np.float64]:
        x, y, u, v = (a, b)[i], (a, b)[j], weights[i], weights[j]
        total, pairs = np.zeros(len(u)), np.zeros(len(u))
        size = max(1, BLOCK_BYTES // (8 * len(y)))
        for rows in (slice(start, start + size) for start in range(0, len(x), size)):
            apart = of[i][rows, None] != of[j][None, :]
            total += np.einsum("bj,bj->b", u[:, rows] @ (kernel(x[rows], y) * apart), v)
            pairs += np.einsum("bj,bj->b", u[:, rows] @ apart.astype(float), v)
        return total / pairs

    return mean(0, 0) + mean(1, 1) - 2 * mean(0, 1)


def kid_subsets(
    a: NDArray[Any], b: NDArray[Any], subsets: int = KID_SUBSETS, size: int = KID_SIZE, seed: int = 0
) -> MeanStd:
    """KID as it is usually given: unbiased squared MMD of random subsets, mean and deviation over them.

    Subsets have `size` samples, or all of the smaller set. Pairs of one source are not left out, so crops
    that are alike make it too small. The deviation is that of a subset, not of the mean. Of bootstraps over
    sources: `kid`.
    """
    a, b = checked(a, "first set", 2), checked(b, "second set", 2)
    rng, size = np.random.default_rng(seed), min(size, len(a), len(b))
    if size == len(a) == len(b):
        subsets = 1  # all would be the same
    found = []
    for _ in range(subsets):
        x, y = (one[rng.permutation(len(one))[:size]] for one in (a, b))
        within = [(k.sum() - np.trace(k)) / (size * (size - 1)) for k in (kernel(x, x), kernel(y, y))]
        found.append(sum(within) - 2 * kernel(x, y).mean())
    return MeanStd(float(np.mean(found)), float(np.std(found)))


def inception_score(class_logits: NDArray[Any], splits: int = SPLITS, seed: int = 0) -> MeanStd:
    """exp(E KL(p(y|x) ‖ p(y))) of class logits (N, classes), over random splits (Salimans et al., 2016).

    Says how sure and how varied a classifier of photographs is: little about tissue, as the paper notes.
    Raises `UserError` for NaN and for fewer samples than splits.
    """
    logits = checked(class_logits, "class logits", splits)
    logs = log_softmax(logits[np.random.default_rng(seed).permutation(len(logits))], axis=1)
    scores = []
    for part in np.array_split(logs, splits):
        marginal = logsumexp(part, axis=0) - np.log(len(part))
        scores.append(np.exp((np.exp(part) * (part - marginal)).sum(axis=1).mean()))
    return MeanStd(float(np.mean(scores)), float(np.std(scores)))
