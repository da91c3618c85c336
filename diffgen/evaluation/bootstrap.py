"""Figures with intervals: whole sources are drawn again or left out, with all samples that are of them.

A source is what crops are of, a slide or an image. Crops of one source are alike, so drawing single samples
again would give intervals that are far too narrow. Three ways, each where the others fail: `resampled` draws
sources with replacement (the bootstrap); `left_out` leaves each of 20 groups of sources out, which tells a
bias that falls with the number of sources (the jackknife); `halved` takes random halves, in which no sample
is there twice (nearest neighbours: a sample taken twice is its own). How often each holds the truth:
`benchmarks/intervals.py`. Invariants: the first of all rows of weights is the data itself, each source once,
and sets that share a source draw it equally often.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from diffgen.errors import UserError

RESAMPLES = 400
"""Enough for the ends of a 95 % interval to stand still to about a tenth of its width."""

TAILS = (0.025, 0.975)
"""Ends of a 95 % interval."""
GROUPS = 20
"""Groups of sources that are left out in turn."""
HALVES = 200
"""Random halves: their deviation stands still to a twentieth."""
REST = 0.1
"""Part of a bias that was taken off which may be left of it: it falls only about as the inverse of the
number."""

Weights = NDArray[np.float64]
"""(B, N): how often each sample is taken; a row of ones is the data itself."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True)
class MeanStd:
    """Mean and standard deviation of a figure over parts of the data, as the literature gives it."""

    mean: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.mean:.3g} ± {self.deviation:.2g}"


def of_sources(sources: NDArray[Any], samples: int, name: str) -> NDArray[np.intp]:
    """Numbers (N,) of sources; `UserError` unless there is one a sample and two different ones."""
    sources = np.asarray(sources, dtype=np.intp)
    if sources.shape != (samples,):
        raise UserError(f"{name}: {samples} samples need as many numbers of sources, not {sources.shape}")
    if len(np.unique(sources)) < 2:
        raise UserError(f"{name}: all samples are of one source, which leaves no interval over sources")
    return sources


def resampled(sources: Sequence[NDArray[np.intp]], count: int = RESAMPLES, seed: int = 0) -> list[Weights]:
    """For several sets of samples, how often each sample is taken: first all once, then `count` bootstraps.

    `sources` are the numbers (N,) of each set's sources. Sets that share a source draw it equally often;
    sets that share none are drawn by themselves.
    """
    rng = np.random.default_rng(seed)
    return _taken(sources, lambda n: rng.multinomial(n, np.full(n, 1 / n), size=count))


def halved(sources: Sequence[NDArray[np.intp]], count: int = HALVES, seed: int = 0) -> list[Weights]:
    """As `resampled`, but each row takes a random half of each set's sources, once each."""
    rng = np.random.default_rng(seed)
    return _taken(sources, lambda n: rng.random((count, n)).argsort(axis=1) < n / 2)


def left_out(sources: Sequence[NDArray[np.intp]], seed: int = 0) -> list[Weights]:
    """As `resampled`, but each row leaves one of at most `GROUPS` random groups of sources out, of all
    sets."""
    rng, groups = np.random.default_rng(seed), min(GROUPS, *(len(np.unique(those)) for those in sources))
    return _taken(sources, lambda n: rng.permutation(n) % groups != np.arange(groups)[:, None])


def _taken(sources: Sequence[NDArray[np.intp]], draw: Callable[[int], NDArray[np.generic]]) -> list[Weights]:
    """(1 + B, N) of each set: its sources once each, then as `draw` takes so many new ones, (B, sources)."""
    taken = dict[int, NDArray[np.float64]]()
    for those in sources:
        if new := [s for s in np.unique(those).tolist() if s not in taken]:
            taken |= dict(zip(new, np.vstack([np.ones(len(new)), draw(len(new))]).T, strict=True))
    return [np.stack([taken[s] for s in those.tolist()], axis=1) for those in sources]


def jackknifed(values: NDArray[np.float64]) -> Estimate:
    """Of a value and those with a group left out (`left_out`), (1 + G,): its bias taken off, and its
    interval.

    The bias is taken to fall as the inverse of the number of sources (Quenouille); `REST` of it widens the
    interval, for what does not.
    """
    whole, parts = values[0], values[1:]
    bias = (len(parts) - 1) * (parts.mean() - whole)
    reach = t.ppf(TAILS[1], len(parts) - 1) * np.sqrt(variance_of_groups(parts) + (REST * bias) ** 2)
    return Estimate(float(whole - bias), float(whole - bias - reach), float(whole - bias + reach))


def variance_of_groups(parts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance of a figure of all sources, of those (G, …) with a group left out: the jackknife's."""
    return np.asarray((len(parts) - 1) / len(parts) * np.square(parts - parts.mean(axis=0)).sum(axis=0))


def variance_of_halves(halves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance of a figure of all sources, of those (B, …) of halves without replacement: their own variance.

    That of a half's mean is s²/(S/2) · (1 − 1/2) = s²/S, for S sources of variance s².
    """
    return np.asarray(np.nanvar(halves, axis=0))


def estimate(
    values: NDArray[np.float64], times: float = 1.0, centred: bool = True, sources: int | None = None
) -> Estimate:
    """Of a value and its bootstraps, (1 + B,).

    `centred` takes the bootstraps' own bias off (sources taken twice make a set look narrower). Of few
    `sources` bootstraps vary too little: the interval is as much wider as Student's is than the normal one.
    """
    values = np.asarray(values, dtype=float) * times
    rest = values[1:][np.isfinite(values[1:])]
    bias = rest.mean() - values[0] if centred else 0.0
    low, high = np.quantile(rest, TAILS) - bias
    if sources is not None:
        few = max(2, sources)
        wider = t.ppf(TAILS[1], few - 1) / norm.ppf(TAILS[1]) * np.sqrt(few / (few - 1))
        middle = rest.mean() - bias
        low, high = (middle + wider * (end - middle) for end in (low, high))
    return Estimate(float(values[0]), float(low), float(high))


def off(values: NDArray[np.float64], sources: int, among: int = 1) -> list[Estimate]:
    """How far differences are from 0, of these and their bootstraps (1 + B, C), over so many sources.

    |d| grows by chance, so its own bootstraps do not hold it: the ends are those of d. `among`: where the
    largest of so many is asked for, the lower ends are for all of them (Bonferroni).
    """
    whole, deviation = np.abs(values[0]), np.nanstd(values[1:], axis=0)
    below, above = (t.isf(TAILS[0] / number, max(1, sources - 1)) * deviation for number in (among, 1))
    ends = zip(whole, (whole - below).clip(0), whole + above, strict=True)
    return [Estimate(float(value), float(low), float(high)) for value, low, high in ends]


def over(found: Sequence[Estimate], of: Callable[[list[float]], Any]) -> Estimate:
    """One figure of several, their largest or mean or median, with its ends."""
    return Estimate(*(float(of([getattr(one, end) for one in found])) for end in ("value", "low", "high")))


def ratio(one: Estimate, other: Estimate, together: float = 0.0) -> Estimate:
    """One figure over another, neither below 0, from their intervals (Donner and Zou, 2012).

    `together` is the correlation of the two. Where the other may be 0 the upper end is infinite.
    """

    def end(mine: float, its: float, sign: float) -> float:
        a, b = one.value, other.value
        scale = its * (2 * b - its)
        if scale <= 0:
            return 0.0 if sign < 0 else np.inf
        middle = a * b - together * abs((mine - a) * (its - b))
        under = max(0.0, middle**2 - mine * its * (2 * a - mine) * (2 * b - its))
        return max(0.0, float(middle + sign * np.sqrt(under)) / scale)

    value = one.value / other.value if other.value else np.nan
    return Estimate(value, end(one.low, other.high, -1.0), end(one.high, other.low, 1.0))


def pairs_larger(
    one: NDArray[np.float64], other: NDArray[np.float64], of_one: Weights, of_other: Weights
) -> NDArray[np.float64]:
    """(B,): pairs in which `other` (m,) is larger than `one` (n,), equal ones half: Mann and Whitney's U, for
    each row of weights."""
    order = np.argsort(one, kind="stable")
    below = np.pad(np.cumsum(of_one[:, order], axis=1), ((0, 0), (1, 0)))
    left, right = (np.searchsorted(one[order], other, side) for side in ("left", "right"))
    return np.asarray(np.einsum("bj,bj->b", of_other, (below[:, left] + below[:, right]) / 2))


def mean_of(values: NDArray[np.float64], weights: Weights) -> NDArray[np.float64]:
    """(B,): weighted means of values (N,), those that are not a number left out."""
    there = np.isfinite(values)
    return weights[:, there] @ values[there] / weights[:, there].sum(axis=1)


def as_json(value: Any) -> Any:
    """Figures as [value, low, high], spreads as [mean, deviation], dataclasses by their fields.

    Arrays become lists; what is no number or infinite, None. Fields without a place in the dataclass's `repr`
    are left out.
    """
    match value:
        case Estimate():
            return as_json([value.value, value.low, value.high])
        case MeanStd():
            return as_json([value.mean, value.deviation])
        case dict():
            return {key: as_json(item) for key, item in value.items()}
        case list() | tuple():
            return [as_json(item) for item in value]
        case np.ndarray() | np.generic():
            return as_json(value.tolist())
        case float():
            return value if np.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in fields(value) if field.repr}
    return value
