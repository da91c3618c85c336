"""What a large image has that a patch has not: lines where patches meet, order at a distance, colour drift.

An image is measured by itself, and a set is judged by sums of what was measured, so no more than one image
is held. Figures of a set have a value for each row of weights (`bootstrap`). Invariants: mean and variance
are those of the set and not of the image, so what varies from image to image counts as order at all
distances. Colours are 8-bit sRGB; optical density is −log₁₀((value + 1) / 256) of a channel.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffgen.evaluation.bootstrap import Weights
from diffgen.evaluation.patterns import LUMINANCE
from diffgen.labels import Picture

BLOCKS = 4
"""Blocks along a side in which colour is averaged: what is slower than a quarter of the image drifts."""


Borders = Sequence[NDArray[np.bool_]]
"""Where neighbours are parted: one above the other, (H − 1, W), and side by side, (H, W − 1), or what
broadcasts to that."""


def jumps(values: NDArray[Any], borders: Borders, others: Borders | None = None) -> NDArray[np.float64]:
    """(4,): squared jumps between neighbours summed at borders, their number; summed at others, their number.

    `values` (C, H, W): the mean over channels counts. `others` are all other places unless given.
    """
    found = np.zeros(4)
    for number, (axis, border) in enumerate(zip((1, 2), borders, strict=True)):
        squared = sum(np.square(np.diff(one.astype(np.float64), axis=axis - 1)) for one in values)
        squared = squared / len(values)
        at = np.broadcast_to(border, squared.shape)
        rest = ~at if others is None else np.broadcast_to(others[number], squared.shape)
        found += squared[at].sum(), at.sum(), squared[rest].sum(), rest.sum()
    return found


def patch_lines(side: int, patch: int) -> tuple[Borders, Borders]:
    """Borders of square pictures at the multiples of `patch`, and at those of its quarter between them.

    Blocks of JPEG (8 pixels) and of an autoencoder's latents leave jumps at all their multiples: what is held
    against a patch line has to be such a multiple too, or every picture of either kind would have seams.
    """
    borders = lines(side, side, patch)
    quarters = lines(side, side, patch // 4 if patch % 4 == 0 else 1)
    return borders, [quarter & ~border for quarter, border in zip(quarters, borders, strict=True)]


def lines(height: int, width: int, side: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Borders, as `jumps` takes them, at the multiples of `side`: where tiles laid side by side meet."""
    rows, columns = (np.arange(1, length) % side == 0 for length in (height, width))
    return rows[:, None], columns[None, :]


def seam_ratio(jumps: NDArray[np.float64], weights: Weights) -> NDArray[np.float64]:
    """(B,): mean squared jump at borders over that at the others, of jumps (N, 4); 1: nothing is seen."""
    total = weights @ jumps
    with np.errstate(divide="ignore", invalid="ignore"):
        return (total[:, 0] / total[:, 1]) / (total[:, 2] / total[:, 3])


def moments(picture: Picture, lags: Sequence[int]) -> NDArray[np.float64]:
    """(2 + lags,): mean of luminance in [0, 1], of its square, and of its products at each distance.

    Of a picture (H, W, 3); `lags` in pixels, less than its sides. A product is the mean of those along both
    axes.
    """
    y = picture.astype(np.float64) @ (np.array(LUMINANCE) / 255)
    products = [
        np.einsum("ij,ij->", y[lag:], y[:-lag]) / y[lag:].size / 2
        + np.einsum("ij,ij->", y[:, lag:], y[:, :-lag]) / y[:, lag:].size / 2
        for lag in lags
    ]
    return np.array([y.mean(), np.square(y).mean(), *products])


def correlation(moments: NDArray[np.float64], weights: Weights) -> NDArray[np.float64]:
    """(B, lags): correlation by distance over a set of images, of moments (N, 2 + lags), about its mean."""
    mean = weights @ moments / weights.sum(axis=1, keepdims=True)
    square = mean[:, :1] ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return (mean[:, 2:] - square) / (mean[:, 1:2] - square)


def block_densities(picture: Picture, blocks: int = BLOCKS) -> NDArray[np.float64]:
    """(blocks, blocks, 3): mean optical density of a picture (H, W, 3) in each block of a grid over it."""
    table = -np.log10((np.arange(256) + 1) / 256)
    ends = [[len_ * k // blocks for k in range(blocks + 1)] for len_ in picture.shape[:2]]
    found = np.empty((blocks, blocks, 3))
    for i in range(blocks):
        for j in range(blocks):
            block = picture[ends[0][i] : ends[0][i + 1], ends[1][j] : ends[1][j + 1]]
            for c in range(3):  # by counts of the 256 values: a picture of densities is never made
                counts = np.bincount(block[..., c].reshape(-1), minlength=256)
                found[i, j, c] = counts @ table / counts.sum()
    return found


def drift(densities: NDArray[np.float64], weights: Weights) -> NDArray[np.float64]:
    """(B,): deviation of block means within an image over that of images' means, of (N, b, b, 3).

    √(Σ_c E_i Var_b D_ibc ÷ Σ_c Var_i E_b D_ibc), where D_ibc is the density of channel c in block b of image
    i. Tissue changes across an image too: what real images have is right, neither more nor less.
    """
    d = densities.reshape(len(densities), -1, 3)
    share = weights / weights.sum(axis=1, keepdims=True)
    means = d.mean(axis=1)
    within = share @ d.var(axis=1).sum(axis=1)
    between = (share @ np.square(means) - np.square(share @ means)).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(within / between)


def mean_map(densities: NDArray[np.float64]) -> NDArray[np.float64]:
    """(b, b, 3): mean over images of each block's density less that of its image."""
    return (densities - densities.mean(axis=(1, 2), keepdims=True)).mean(axis=0)


def systematic(densities: NDArray[np.float64], weights: Weights) -> NDArray[np.float64]:
    """(B,): how much more alike block maps are than by chance, of (N, b, b, 3), N independent images.

    With M_ibc = D_ibc − E_b D_ibc: N · Σ_bc (E_i M_ibc)² ÷ Σ_bc Var_i M_ibc. 1 is chance; more where the
    same blocks are darker, or of another colour, in most images. A bootstrap of it is larger by about 1.
    """
    maps = (densities - densities.mean(axis=(1, 2), keepdims=True)).reshape(len(densities), -1)
    count = weights.sum(axis=1)
    mean = weights @ maps / count[:, None]
    square = weights @ np.square(maps) / count[:, None]
    variance = (square - np.square(mean)).sum(axis=1) * count / (count - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return count * np.square(mean).sum(axis=1) / variance
