"""Whether a generator repeats itself: synthetic samples that are nearer to one another than real ones are."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from diffgen.evaluation.bootstrap import Estimate
from diffgen.evaluation.distances import TIE, Nearest, checked, nearest
from diffgen.evaluation.shares import share

QUANTILE = 0.01
"""Of the distances between real samples: what is nearer counts as the same."""


@dataclass(frozen=True)
class Duplicates:
    """Synthetic samples that are as near to another one as real samples hardly ever are."""

    threshold: float
    """Distance between features; no unit."""
    share: Estimate
    """Of synthetic samples whose nearest one of another source is within the threshold."""
    expected: Estimate
    """The same share of the real set, which is the `quantile` or a little more."""
    rows: NDArray[np.intp]
    """(n,): the synthetic samples that were looked at, as many as there are real ones at most."""
    nearest: Nearest
    """(n, 1): their nearest one of another source; indices are rows of the whole synthetic set."""

    @property
    def more(self) -> bool:
        """Whether there are more than among real samples, which few samples do not tell."""
        return self.share.low > self.expected.high


def near_duplicates(
    real: NDArray[Any], synthetic: NDArray[Any],
    real_sources: NDArray[np.intp], synthetic_sources: NDArray[np.intp], *,
    quantile: float = QUANTILE, seed: int = 0,
) -> Duplicates:  # fmt: skip
    """Share of synthetic samples nearer to one of another source than the `quantile` of real samples are.

    Nearest distances shrink as a set grows, so the larger set is cut to the size of the smaller, at random.
    A generator that repeats itself, of its training data or not, has a larger share than `quantile`. The
    intervals are for this threshold, which few real samples make: those of the expected share are as wide.
    Samples that are near to one another count as one.
    """
    real, synthetic = checked(real, "real", 2), checked(synthetic, "synthetic", 2)
    rng, size = np.random.default_rng(seed), min(len(real), len(synthetic))
    rows, of_real = (np.sort(rng.permutation(len(one))[:size]) for one in (synthetic, real))
    own, other = real_sources[of_real], synthetic_sources[rows]
    between = nearest(real[of_real], real[of_real], apart=(own, own))
    found = nearest(synthetic[rows], synthetic[rows], apart=(other, other))
    threshold = float(np.quantile(between.distances[:, 0], quantile))
    near, near_real = (one.distances[:, 0] <= threshold * (1 + TIE) for one in (found, between))
    return Duplicates(
        threshold=threshold,
        share=share(near, _together(near, found.indices[:, 0], other)),
        expected=share(near_real, _together(near_real, between.indices[:, 0], own)),
        rows=rows,
        nearest=Nearest(found.distances, rows[found.indices]),
    )


def _together(near: NDArray[np.bool_], of: NDArray[np.intp], sources: NDArray[np.intp]) -> NDArray[np.intp]:
    """(N,): numbers of sources, those that a sample is near to another of taken for one."""
    names, number = np.unique(sources, return_inverse=True)
    pairs = (np.ones(near.sum()), (number[near], number[of[near]]))
    _, joined = connected_components(coo_array(pairs, shape=(len(names), len(names))), directed=False)
    return np.asarray(joined[number], dtype=np.intp)
