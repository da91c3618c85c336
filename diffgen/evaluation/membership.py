"""Membership inference by distance: do synthetic images tell which real ones a generator saw?

The attack of Chen et al. (2020, GAN-Leaks, "full black-box"): a real sample that is near to a synthetic one
is guessed to be of the training set. Its AUC is the probability that a training sample is nearer than a
held-out one: 0.5 is a coin, 1 tells all. Distances are those of one network's features: 0.5 proves nothing.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffgen.evaluation.bootstrap import RESAMPLES, Estimate, Weights, estimate, of_sources, resampled
from diffgen.evaluation.distances import nearest


def membership(
    training: NDArray[Any], held_out: NDArray[Any], synthetic: NDArray[Any],
    training_sources: NDArray[np.intp], held_out_sources: NDArray[np.intp], *,
    count: int = RESAMPLES, seed: int = 0,
) -> Estimate:  # fmt: skip
    """AUC of distances of training (N, d) and held-out samples (M, d) to the nearest synthetic one (S, d).

    The interval is over sources of both. `UserError` for a set of one source, and for NaN.
    """
    sources = (
        of_sources(training_sources, len(training), "training"),
        of_sources(held_out_sources, len(held_out), "held-out"),
    )
    near, far = (nearest(one, synthetic).distances[:, 0] for one in (training, held_out))
    return estimate(auc(near, far, *resampled(sources, count, seed)))


def auc(
    near: NDArray[np.float64], far: NDArray[np.float64], of_near: Weights, of_far: Weights
) -> NDArray[np.float64]:
    """(B,): share of pairs in which `near` (N,) is the smaller, equal ones half, for each row of weights."""
    order = np.argsort(near, kind="stable")
    below = np.pad(np.cumsum(of_near[:, order], axis=1), ((0, 0), (1, 0)))
    left, right = (np.searchsorted(near[order], far, side) for side in ("left", "right"))
    pairs = np.einsum("bj,bj->b", of_far, (below[:, left] + below[:, right]) / 2)
    total = of_near.sum(axis=1) * of_far.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(pairs / total)
