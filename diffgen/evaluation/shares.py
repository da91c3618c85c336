"""Shares of samples and means of counts, with exact intervals, where samples of one source are alike."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, chi2, norm, t

from diffgen.evaluation.bootstrap import TAILS, Estimate


def share(inside: NDArray[Any], sources: NDArray[np.intp], variance: float | None = None) -> Estimate:
    """The share of samples (N,) at which `inside` is true.

    `sources` (N,) number what each sample is of. Where each has one sample, the interval is the exact one of
    Clopper and Pearson (1934): none of 100 is up to 3.6 %. Else, or with a `variance` of the share where more
    than the sources makes it vary, that of Korn and Graubard (1998): the exact one of as many samples as
    would be as sure if they were independent, p(1 − p) over the variance, and wider for few sources.
    """
    value, number = float(np.mean(inside)), len(np.unique(sources))
    if variance is None and number == len(inside):
        return _exact(value, number)
    if variance is None:
        variance = variance_over(inside, sources)
    if variance <= 0 or not 0 < value < 1:
        return _exact(value, number)
    wider = (t.ppf(TAILS[1], max(1, number - 1)) / norm.ppf(TAILS[1])) ** 2
    return _exact(value, max(1.0, value * (1 - value) / variance) / wider)


def _exact(value: float, trials: float) -> Estimate:
    hits = value * trials
    low = beta.ppf(TAILS[0], hits, trials - hits + 1) if value > 0 else 0.0
    high = beta.ppf(TAILS[1], hits + 1, trials - hits) if value < 1 else 1.0
    return Estimate(value, float(low), float(high))


def mean_count(counts: NDArray[Any], variance: float, sources: int) -> Estimate:
    """The mean of counts (N,), which is not below 0, over so many sources: by gamma functions (Fay and
    Feuer, 1997).

    As the exact interval of a Poisson mean, with its variance; one count of one source more is in the upper
    end.
    """
    value, one = float(counts.mean()), 1 / sources
    low = variance / (2 * value) * chi2.ppf(TAILS[0], 2 * value**2 / variance) if value and variance else 0.0
    more, wider = value + one, variance + one**2
    high = wider / (2 * more) * chi2.ppf(TAILS[1], 2 * more**2 / wider)
    return Estimate(value, float(low), float(high))


def variance_over(values: NDArray[Any], sources: NDArray[np.intp]) -> float:
    """Variance of the mean of values (N,) over sources (N,), which are drawn whole."""
    _, number = np.unique(sources, return_inverse=True)
    sums = np.bincount(number, values.astype(float) - values.mean())
    few = len(sums) / max(1, len(sums) - 1)
    return float(few * np.square(sums).sum() / len(values) ** 2)
