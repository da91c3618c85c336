"""Whether large images hold together: seams at patch lines, order at a distance, drift of colour.

Of each image a row of sums is kept, from which all figures and their bootstraps come: images are read one
at a time, and never all held. What is seen is grey or the mean colour of blocks; a wrong order of glands, or
a nucleus cut in two between patch lines, is not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffgen.evaluation.bootstrap import RESAMPLES, Figure, Weights, figure, of_sources, resampled
from diffgen.labels import Picture

LUMINANCE = np.array([0.299, 0.587, 0.114]) / 255
LAGS = (4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Distances in pixels at which luminance is held against itself; those up to half the side are used."""
BLOCKS = 4
"""Along a side, of which mean colours are compared."""


@dataclass(frozen=True)
class Sums:
    """What is kept of N images of one side."""

    side: int
    """In pixels."""
    jumps: NDArray[np.float64]
    """(N, 4): squared jumps of luminance across patch lines and their number, elsewhere and their number."""
    luminance: NDArray[np.float64]
    """(N, 2 + lags): mean, mean of the square, mean product at each distance."""
    colours: NDArray[np.float64]
    """(N, 4, 4, 3): mean optical density, −log10 of the share of light, of each block."""

    @property
    def lags(self) -> tuple[int, ...]:
        return lags(self.side)


@dataclass(frozen=True)
class Large:
    """Synthetic images against real ones of the same side."""

    seam: Figure | None
    """Mean squared jump across patch lines ÷ elsewhere: 1 is right. None where no patch is known."""
    seam_real: Figure | None
    """The same of real images, which have no patches: what the lines themselves do."""
    lags: tuple[int, ...]
    """In pixels."""
    correlation: NDArray[np.float64]
    """(3, lags): of synthetic images, and its interval."""
    correlation_real: NDArray[np.float64]
    error: Figure
    """Mean |difference| of the two over the distances."""
    error_real: Figure
    """The same of other real images."""
    drift: Figure
    """Deviation of the blocks' optical density inside of an image, over that of real images: 1 is right."""
    pattern: float
    """Share of the blocks' deviations that all images have in common, times N: about 1 where there is none,
    ≫ 1 where, say, all images are darker in one corner."""
    pattern_real: float


def lags(side: int) -> tuple[int, ...]:
    return tuple(lag for lag in LAGS if lag <= side // 2)


def measure(pictures: Iterable[Picture], patch_px: int | None) -> Sums:
    """Sums of square pictures (S, S, 3) of one side; patch lines are at multiples of `patch_px` pixels."""
    jumps, moments, colours, side = [], [], [], 0
    for picture in pictures:
        grey, side = picture.astype(np.float64) @ LUMINANCE, picture.shape[0]
        jumps.append(_jumps(grey, patch_px))
        moments.append(luminance_moments(grey[None], lags(side))[0])
        density = -np.log10((picture.astype(np.float64) + 1) / 256)
        cut = side // BLOCKS * BLOCKS
        blocks = density[:cut, :cut].reshape(BLOCKS, cut // BLOCKS, BLOCKS, cut // BLOCKS, 3)
        colours.append(blocks.mean(axis=(1, 3)))
    return Sums(side, np.array(jumps), np.array(moments), np.array(colours))


def _jumps(grey: NDArray[np.float64], patch_px: int | None) -> NDArray[np.float64]:
    found = np.zeros(4)
    for axis in (0, 1):
        squared = np.square(np.diff(grey, axis=axis)).sum(axis=1 - axis)
        line = (np.arange(1, len(squared) + 1) % (patch_px or len(squared) + 2)) == 0
        width = grey.shape[1 - axis]
        found += squared[line].sum(), line.sum() * width, squared[~line].sum(), (~line).sum() * width
    return found


def luminance_moments(luminance: NDArray[np.float64], distances: Sequence[int]) -> NDArray[np.float64]:
    """(N, 2 + lags) of (N, S, S): mean, mean of the square, mean product at each distance over both axes."""
    y = luminance
    products = [
        ((y[:, lag:] * y[:, :-lag]).mean((1, 2)) + (y[:, :, lag:] * y[:, :, :-lag]).mean((1, 2))) / 2
        for lag in distances
    ]
    return np.stack([y.mean((1, 2)), np.square(y).mean((1, 2)), *products], axis=1)


def correlation(moments: NDArray[np.float64], weights: Weights) -> NDArray[np.float64]:
    """(B, lags): correlation by distance over a set of images, about the mean of all of them.

    About each image's own mean, structure as large as an image would be lost.
    """
    mean = weights @ moments / weights.sum(axis=1, keepdims=True)
    square = mean[:, :1] ** 2
    return (mean[:, 2:] - square) / (mean[:, 1:2] - square)


def seam(jumps: NDArray[np.float64], weights: Weights) -> NDArray[np.float64]:
    """(B,): mean squared jump across patch lines over that elsewhere."""
    across, lines, elsewhere, others = (weights @ jumps).T
    with np.errstate(invalid="ignore", divide="ignore"):
        return (across / lines) / (elsewhere / others)


def spread(colours: NDArray[np.float64], weights: Weights) -> NDArray[np.float64]:
    """(B,): root of the mean variance of the blocks' optical density inside of an image."""
    inside = colours.var(axis=(1, 2)).mean(axis=-1)
    return np.sqrt(weights @ inside / weights.sum(axis=1))


def pattern(colours: NDArray[np.float64]) -> float:
    """N·(squared mean deviation of a block from its image) ÷ its variance, over blocks and channels."""
    deviation = colours - colours.mean(axis=(1, 2), keepdims=True)
    variance = deviation.var(axis=0, ddof=1).mean()
    return float(len(colours) * np.square(deviation.mean(axis=0)).mean() / variance) if variance else 0.0


def evaluate_large(
    sets: Sequence[Sums], sources: Sequence[NDArray[np.intp]], count: int = RESAMPLES, seed: int = 0
) -> Large:
    """Figures of synthetic images, real ones and other real ones, all of one side, and their `sources` (N,).

    Intervals are of 95 % over sources of both sets. Raises `UserError` for a set of one source.
    """
    synthetic, real, _ = sets
    named = zip(sources, sets, ("synthetic", "real", "other real"), strict=True)
    checked = [of_sources(one, len(sums.jumps), name) for one, sums, name in named]
    weights = resampled(checked, count, seed)
    curves = [correlation(one.luminance, w) for one, w in zip(sets, weights, strict=True)]
    lines = bool(synthetic.jumps[:, 1].all())
    return Large(
        seam=figure(seam(synthetic.jumps, weights[0])) if lines else None,
        seam_real=figure(seam(real.jumps, weights[1])) if lines else None,
        lags=synthetic.lags,
        correlation=_band(curves[0]),
        correlation_real=_band(curves[1]),
        error=figure(np.abs(curves[0] - curves[1]).mean(axis=1), centred=False),
        error_real=figure(np.abs(curves[2] - curves[1]).mean(axis=1), centred=False),
        drift=figure(spread(synthetic.colours, weights[0]) / spread(real.colours, weights[1])),
        pattern=pattern(synthetic.colours),
        pattern_real=pattern(real.colours),
    )


def _band(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([curves[0], *np.quantile(curves[1:], (0.025, 0.975), axis=0)])
