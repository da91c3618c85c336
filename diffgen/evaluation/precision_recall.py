"""How good and how diverse a synthetic set is: figures of its features against those of a real one.

Appendix C of the paper and what its peers report. Features (N, d) are those of one network for both sets and
have no unit; nor has any figure here. Invariants: crops of one source are alike, so all intervals are over
whole sources, of both sets (`bootstrap`). What an interval holds: of KID and the Fréchet distance, that of
the two populations (the latter in the directions that were found in the real set); of IP, IR, density and
coverage, which depend on the number of samples, their expectation at these numbers. None of these figures
sees a copy: a generator that repeats the training set is perfect by all of them (`memorization`, `copies`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffgen.evaluation.bootstrap import (
    RESAMPLES,
    Estimate,
    MeanStd,
    estimate,
    halved,
    jackknifed,
    left_out,
    of_sources,
    ratio,
    resampled,
    variance_of_groups,
    variance_of_halves,
)
from diffgen.evaluation.distances import checked, kth_radii, within
from diffgen.evaluation.divergences import (
    COMPONENTS,
    fid,
    frechet,
    inception_score,
    kid,
    kid_subsets,
    principal,
)
from diffgen.evaluation.half_samples import Shares, of_parts
from diffgen.evaluation.shares import mean_count, share

K = 3
"""Neighbours that make a ball, as in the paper and in Kynkäänniemi et al. (2019)."""
ENOUGH = 10_000
"""Samples from which on FID is commonly given (Heusel et al., 2017: at least 10,000)."""


@dataclass(frozen=True)
class Balls:
    """For each sample, what balls around the samples of the other set say of it."""

    precise: NDArray[np.bool_]
    """(Nₛ,): f(φ_g, Φ_r) of eq. (10): the synthetic sample lies in a real one's ball."""
    recalled: NDArray[np.bool_]
    """(Nᵣ,): f(φ_r, Φ_g): the real sample lies in a synthetic one's ball."""
    density: NDArray[np.float64]
    """(Nₛ,): real balls that hold the synthetic sample, ÷ k."""
    covered: NDArray[np.bool_]
    """(Nᵣ,): the real sample's own ball holds a synthetic one."""


@dataclass(frozen=True)
class Fidelity:
    """Figures of a synthetic set against a real one."""

    samples: tuple[int, int]
    """Real, synthetic."""
    sources: tuple[int, int]
    """Of these."""
    precision: Estimate
    """IP, eq. (11)."""
    recall: Estimate
    """IR, eq. (12)."""
    density: Estimate
    """Mean number of real balls that hold a synthetic sample, ÷ k; 1 is right, may exceed it."""
    coverage: Estimate
    """Share of real balls that hold a synthetic sample."""
    fid: float
    """Squared Fréchet distance in all dimensions (FID where the network is Inception-v3). No interval: with
    more dimensions than a quarter of the sources its bias cannot be told."""
    frechet: Estimate
    """Squared Fréchet distance on the first principal components of the real features, its bias taken off:
    may be below 0."""
    components: int
    """Of the latter."""
    kid: Estimate
    """Unbiased squared MMD, pairs of one source left out."""
    kid_subsets: MeanStd
    """The same over random subsets, as libraries give it."""
    inception_score: MeanStd | None
    """Of the synthetic samples' class logits, where they are given."""
    warning: str | None
    """Why the Fréchet distances are not to be trusted, if so."""
    halves: Shares = field(repr=False, compare=False)
    """Precision, recall, density and coverage of random halves: of two results for one real set, in one
    order."""


def evaluate_fidelity(
    real: NDArray[Any], synthetic: NDArray[Any],
    real_sources: NDArray[np.intp], synthetic_sources: NDArray[np.intp], *,
    k: int = K, components: int | None = None, class_logits: NDArray[Any] | None = None,
    count: int = RESAMPLES, seed: int = 0,
) -> Fidelity:  # fmt: skip
    """All figures of features (Nₛ, d) of synthetic samples against (Nᵣ, d) of real ones.

    `…_sources` number what each sample is of; one number in both sets is one source (a real image, and what
    was drawn under its label map). Sets may differ in size, but only figures from sets of the same sizes
    compare: IP grows with the real set's, IR with the synthetic set's, and FID falls with both. `components`
    of the Fréchet distance; None: `enough_components`. Raises `UserError` for NaN, and for k samples or
    fewer.
    """
    real, synthetic = checked(real, "real", k + 1), checked(synthetic, "synthetic", k + 1)
    sources = (
        of_sources(real_sources, len(real), "real"),
        of_sources(synthetic_sources, len(synthetic), "synthetic"),
    )
    weights = resampled(sources, count, seed)
    balls = ball_shares(real, synthetic, sources, k, seed)
    components = min(components or COMPONENTS, enough_components(sources))
    basis = principal(real, components)
    return Fidelity(
        samples=(len(real), len(synthetic)),
        sources=(number_of(sources[0]), number_of(sources[1])),
        precision=balls.precision,
        recall=balls.recall,
        density=balls.density,
        coverage=balls.coverage,
        fid=fid(real, synthetic),
        frechet=jackknifed(frechet(real @ basis, synthetic @ basis, left_out(sources, seed))),
        components=components,
        kid=estimate(kid(real, synthetic, sources, (weights[0], weights[1]))),
        kid_subsets=kid_subsets(real, synthetic, seed=seed),
        inception_score=None if class_logits is None else inception_score(class_logits, seed=seed),
        warning=too_few(len(real), len(synthetic), real.shape[1]),
        halves=balls.halves,
    )


class BallShares(NamedTuple):
    """Precision, recall, density and coverage with their intervals, and those of random halves."""

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate
    halves: Shares


def ball_shares(
    real: NDArray[Any],
    synthetic: NDArray[Any],
    sources: Sequence[NDArray[np.intp]],
    k: int = K,
    seed: int = 0,
) -> BallShares:
    """Of features (N, d) and `sources` (N,) of two sets, real and synthetic; intervals over both."""
    balls, rows = precision_recall(real, synthetic, k), [halved(sources, seed=seed), left_out(sources, seed)]
    parts = of_parts(real, synthetic, [np.concatenate(one) for one in zip(*rows, strict=True)], k)
    halves = Shares(*(one[1 : len(rows[0][0])] for one in parts))
    precise, recalled, _, covered = (float(variance_of_halves(one)) for one in halves)
    # Of density halves make the deviation a tenth too small.
    dense = float(variance_of_groups(parts.density[len(rows[0][0]) + 1 :]))
    return BallShares(
        precision=share(balls.precise, sources[1], precise),
        recall=share(balls.recalled, sources[0], recalled),
        density=mean_count(balls.density, dense, min(number_of(one) for one in sources)),
        coverage=share(balls.covered, sources[0], covered),
        halves=halves,
    )


def part_of(found: Fidelity, possible: Fidelity, name: str) -> Estimate:
    """A figure of `Shares` over what real images get against the same real ones, with the same seed."""
    mine, theirs = (getattr(one.halves, name) for one in (found, possible))
    together = 0.0
    if mine.std() > 0 and theirs.std() > 0:  # they share the real set
        together = float(np.clip(np.corrcoef(mine, theirs)[0, 1], 0, 0.9))
    return ratio(getattr(found, name), getattr(possible, name), together)


def enough_components(sources: Sequence[NDArray[np.intp]]) -> int:
    """Components of a Fréchet distance whose bias can be told: a quarter of the sources of the smaller
    set."""
    return max(1, min(COMPONENTS, *(number_of(one) // 4 for one in sources)))


def number_of(sources: NDArray[np.intp]) -> int:
    return len(np.unique(sources))


def precision_recall(real: NDArray[Any], synthetic: NDArray[Any], k: int = K) -> Balls:
    """Improved precision and recall, eqs. (10)–(12), density and coverage (Naeem et al., 2020), by sample.

    The ball of a sample reaches to its k-th nearest other sample of its own set. The figures are the means.
    Precision depends on the size of the real set, recall on that of the synthetic set: compare only figures
    from sets of the same sizes. Raises `UserError` for NaN, and for k samples or fewer.
    """
    real, synthetic = checked(real, "real", k + 1), checked(synthetic, "synthetic", k + 1)
    around_real = within(synthetic, real, kth_radii(real, k))
    around_synthetic = within(real, synthetic, kth_radii(synthetic, k))
    return Balls(
        precise=around_real.balls > 0,
        recalled=around_synthetic.balls > 0,
        density=around_real.balls / k,
        covered=around_real.queries > 0,
    )


def too_few(real: int, synthetic: int, dimensions: int) -> str | None:
    """A line where samples are too few for a Fréchet distance in that many dimensions, else None."""
    least = min(real, synthetic)
    if least >= ENOUGH:
        return None
    why = "too large for few samples, so compare it only between sets of the same sizes"
    if least <= dimensions:
        why += f"; covariances of {dimensions} dimensions are singular with so few"
    return f"FID from {least:,} samples (usual: {ENOUGH:,} or more): {why}. The paper gives none for 200."
