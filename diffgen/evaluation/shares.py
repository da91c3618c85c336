"""Shares with exact intervals: none of a hundred may still be 3.6 %."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from diffgen.evaluation.bootstrap import Estimate

OUTSIDE = 0.025
"""Probability on either side of an interval."""


def exact_share(inside: NDArray[Any], sources: NDArray[np.intp]) -> Estimate:
    """The share of samples (N,) at which `inside` is true, with its Clopper–Pearson interval over sources.

    `sources` (N,) number what each sample is of. Samples of one source say no more than one: the interval is
    that of as many trials as there are sources (Korn and Graubard, 1998), and where each source has one
    sample that of Clopper and Pearson (1934).
    """
    share, trials = float(np.asarray(inside, dtype=float).mean()), len(np.unique(sources))
    hits = share * trials
    low = float(beta.ppf(OUTSIDE, hits, trials - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - OUTSIDE, hits + 1, trials - hits)) if hits < trials else 1.0
    return Estimate(share, low, high)
