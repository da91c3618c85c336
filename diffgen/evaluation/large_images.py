"""How good large images are as wholes: seams at patch lines, order at a distance, colour drift.

Features of a network see a patch; a large image of good patches may still be a quilt. What is measured is
in `structure`; here are sets of images, the real ones beside the synthetic ones, and intervals over sources.
Invariants: images are read one at a time, and the same is done to both sets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffgen.errors import UserError
from diffgen.evaluation.bootstrap import (
    RESAMPLES,
    Estimate,
    MeanStd,
    Weights,
    as_json,
    estimate,
    of_sources,
    off,
    over,
    resampled,
)
from diffgen.evaluation.features import View
from diffgen.evaluation.images import RegionSet
from diffgen.evaluation.memorization import Memorization, Reference
from diffgen.evaluation.precision_recall import ball_shares
from diffgen.evaluation.structure import (
    block_densities,
    correlation,
    drift,
    jumps,
    mean_map,
    moments,
    patch_lines,
    seam_ratio,
    systematic,
)

LAGS = 16
"""Distances, evenly on a logarithmic axis, at which luminance is held against itself."""
VIEW = View()
"""Pictures as they are."""
HALVES = 100
"""Random halves of the real images that are held against each other."""


@dataclass(frozen=True)
class Structure:
    """Figures of one set of large images."""

    images: int
    seam: Estimate | None
    """Mean squared jump across patch lines over that at lines between them; 1 is right. None: one patch."""
    correlation: list[Estimate]
    """Of luminance with itself, at each lag: a curve and the band around it."""
    drift: Estimate
    """Colour within an image over that between images (`structure.drift`)."""
    systematic: Estimate
    """How alike images are in where they are darker, over chance; 1 is right (`structure.systematic`)."""
    drift_map: list[list[list[float]]]
    """Block (row, column), channel: mean optical density less that of its image."""


@dataclass(frozen=True)
class Large:
    """Large images beside real ones: what these have is right."""

    side: int
    """Of all images, in pixels."""
    patch_px: int | None
    lags_px: list[int]
    lags_um: list[float] | None
    synthetic: Structure
    real: Structure
    seam_error: Estimate | None
    """|synthetic − real|, of seams."""
    correlation_error: Estimate
    """Mean over lags of |synthetic − real|; the interval is that of the two populations of images."""
    correlation_error_real: MeanStd
    """The same between random halves of the real images: what such small sets differ by."""

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and lists, figures as `bootstrap.as_json` gives them."""
        return as_json(self)


class Measured(NamedTuple):
    """What is measured of each image of a set."""

    side: int
    jumps: NDArray[np.float64]
    """(N, 4)"""
    moments: NDArray[np.float64]
    """(N, 2 + lags)"""
    densities: NDArray[np.float64]
    """(N, b, b, 3)"""
    sources: NDArray[np.intp]
    """(N,)"""


def compare(
    synthetic: Measured, real: Measured, patch_px: int | None, mpp: float | None,
    count: int = RESAMPLES, seed: int = 0,
) -> Large:  # fmt: skip
    """Figures of what was measured of large images, all of one side, beside those of real ones.

    `patch_px`: side of the patch in image pixels; None where it is not known: no seam is looked for then.
    `mpp`: µm per pixel.
    """
    assert real.side == synthetic.side, "large images are compared at one size"
    lags, sets = lags_for(synthetic.side), (synthetic, real)
    # Numbers of one set mean nothing in the other.
    weights = resampled([synthetic.sources, real.sources + synthetic.sources.max() + 1], count, seed)
    least = min(len(np.unique(one.sources)) for one in sets)
    curves = [correlation(one.moments, drawn) for one, drawn in zip(sets, weights, strict=True)]
    structures = [_structure(one, drawn) for one, drawn in zip(sets, weights, strict=True)]
    seam = None
    if structures[0].seam and structures[1].seam:
        ratios = [seam_ratio(one.jumps, drawn) for one, drawn in zip(sets, weights, strict=True)]
        (seam,) = off((ratios[0] - ratios[1])[:, None], least)
    return Large(
        side=synthetic.side,
        patch_px=patch_px,
        lags_px=list(lags),
        lags_um=None if mpp is None else [lag * mpp for lag in lags],
        synthetic=structures[0],
        real=structures[1],
        seam_error=seam,
        correlation_error=over(off(curves[0] - curves[1], least), np.mean),
        correlation_error_real=_between_halves(real, seed),
    )


def lags_for(side: int) -> tuple[int, ...]:
    """Distances in pixels from 1 to half the side."""
    return tuple(np.unique(np.geomspace(1, max(1, side // 2), LAGS).round().astype(int)).tolist())


@dataclass(frozen=True)
class Scores:
    """What Tables 1 and 5 say of a set, in tiles of large images or of these resized."""

    compared: int
    """Samples of each set that precision and recall are of."""
    precision: Estimate
    recall: Estimate
    memory: Memorization


class Judge:
    """Real tiles or images that sets are held against: what is computed of them alone is computed once.

    `features` (N, d) and `sources` (N,) of two sets: training samples and other real ones. `held_out`: the
    generator never saw the latter.
    """

    def __init__(
        self, features: Sequence[NDArray[Any]], sources: Sequence[NDArray[np.intp]], held_out: bool
    ) -> None:
        self.other, self.sources = features[1], sources[1]
        self.reference = Reference(
            features[0], self.other if held_out else None,
            sources[0], self.sources if held_out else None,
        )  # fmt: skip

    def scores(self, synthetic: NDArray[Any], sources: NDArray[np.intp], count: int = RESAMPLES) -> Scores:
        """Of features (N, d) of synthetic samples."""
        compared, of = min(len(self.other), len(synthetic)), (self.sources, sources)
        rows = [np.random.default_rng(0).permutation(len(one))[:compared] for one in of]
        balls = ball_shares(self.other[rows[0]], synthetic[rows[1]], (of[0][rows[0]], of[1][rows[1]]))
        memory = self.reference.judged(synthetic, sources, count=count)
        return Scores(compared, balls.precision, balls.recall, memory)


def measure(
    crops: RegionSet, patch_px: int | None, view: View = VIEW, tell: Callable[[int], Any] = lambda _: None
) -> Measured:
    """Images one after the other, each as `view` has it; `tell` hears of each.

    Raises `UserError` where all are of one source, or there is nothing to see in them.
    """
    where, lags = crops.images.where, lags_for(crops.side)
    sources = of_sources(crops.groups, len(crops), where)
    at = patch_lines(crops.side, patch_px or crops.side)
    found = []
    for picture in map(view, crops.pictures()):
        found.append(
            (jumps(picture.transpose(2, 0, 1), *at), moments(picture, lags), block_densities(picture))
        )
        tell(1)
    columns = [np.stack(column) for column in zip(*found, strict=True)]
    measured = Measured(crops.side, columns[0], columns[1], columns[2], sources)
    if not measured.jumps[:, 2].any():
        raise UserError(f"{where}: every image is of one colour all over")
    if not np.ptp(measured.densities.mean(axis=(1, 2)), axis=0).any():
        raise UserError(f"{where}: all images have the same mean colour, as one and the same would")
    return measured


def _structure(measured: Measured, weights: Weights) -> Structure:
    few = len(np.unique(measured.sources))
    return Structure(
        images=len(measured.sources),
        seam=estimate(seam_ratio(measured.jumps, weights), sources=few) if measured.jumps[0, 1] else None,
        correlation=[
            estimate(at, centred=False, sources=few) for at in correlation(measured.moments, weights).T
        ],
        drift=estimate(drift(measured.densities, weights), sources=few),
        systematic=_systematic(measured, weights),
        drift_map=mean_map(measured.densities).tolist(),
    )


def _systematic(measured: Measured, weights: Weights) -> Estimate:
    """Over sources: images of one are alike, and would be taken for so many that agree."""
    _, first, of, number = np.unique(
        measured.sources, return_index=True, return_inverse=True, return_counts=True
    )
    densities = np.zeros((len(first), *measured.densities.shape[1:]))
    np.add.at(densities, of, measured.densities)
    return estimate(systematic(densities / number[:, None, None, None], weights[:, first]))


def _between_halves(real: Measured, seed: int) -> MeanStd:
    rng, names = np.random.default_rng(seed), np.unique(real.sources)
    halves = np.stack([
        np.isin(real.sources, rng.permutation(names)[: len(names) // 2]) for _ in range(HALVES)
    ])  # fmt: skip
    one, other = (correlation(real.moments, half.astype(float)) for half in (halves, ~halves))
    errors = np.abs(one - other).mean(axis=1)
    return MeanStd(float(np.nanmean(errors)), float(np.nanstd(errors)))
