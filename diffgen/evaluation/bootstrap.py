"""Figures with intervals: whole sources are drawn again, with all samples that are of them.

A source is what crops are of, a slide or an image. Crops of one source are alike, so drawing single
samples again would give intervals that are far too narrow. Invariants: the first of all bootstraps is the
data itself, each source once, and sets that share a source draw it equally often.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffgen.errors import UserError

RESAMPLES = 400
"""Enough for the ends of a 95 % interval to stand still to about a tenth of its width."""

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
    rng, drawn = np.random.default_rng(seed), dict[int, NDArray[np.float64]]()
    for those in sources:
        new = [s for s in np.unique(those).tolist() if s not in drawn]
        if new:
            counts = rng.multinomial(len(new), np.full(len(new), 1 / len(new)), size=count)
            drawn |= dict(zip(new, np.vstack([np.ones(len(new)), counts]).T, strict=True))
    return [np.stack([drawn[s] for s in those.tolist()], axis=1) for those in sources]


def estimate(values: NDArray[np.float64], times: float = 1.0, centred: bool = True) -> Estimate:
    """Of a value and its bootstraps, (1 + B,).

    `centred` takes the bootstraps' own bias off (sources taken twice make a set look narrower).
    """
    values = np.asarray(values, dtype=float) * times
    rest = values[1:][np.isfinite(values[1:])]
    bias = rest.mean() - values[0] if centred else 0.0
    low, high = np.quantile(rest, (0.025, 0.975)) - bias
    return Estimate(float(values[0]), float(low), float(high))


def mean_of(values: NDArray[np.float64], weights: Weights) -> NDArray[np.float64]:
    """(B,): weighted means of values (N,), those that are not a number left out."""
    there = np.isfinite(values)
    return weights[:, there] @ values[there] / weights[:, there].sum(axis=1)


def share_of(inside: NDArray[Any], weights: Weights) -> Estimate:
    """The share of samples (N,) at which `inside` is true, or the mean of what it counts."""
    return estimate(mean_of(inside.astype(float), weights), centred=False)


def as_json(value: Any) -> Any:
    """Figures as [value, low, high], spreads as [mean, deviation], dataclasses by their fields.

    Arrays become lists; what is no number or infinite, None.
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
        return {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
    return value
