"""Figures of large canvases against real images: order at a distance, and what is left of borders."""

import numpy as np
from numpy.typing import NDArray

from benchmarks.tissue import Tissue
from diffgen.evaluation import large
from diffgen.evaluation.bootstrap import Weights

LAGS = (4, 8, 16, 32, 48, 64, 96, 128, 192)
"""Distances in pixels at which luminance is held against itself."""


def luminance_moments(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(N, 2 + lags): mean of luminance, of its square, and of products at each distance, both axes."""
    distances = [lag for lag in LAGS if lag < pictures.shape[2]]
    return large.luminance_moments(pictures.astype(np.float64) @ large.LUMINANCE, distances)


def jumps(latents: NDArray[np.float32], owner: list[NDArray[np.int32]]) -> NDArray[np.float64]:
    """(N, 4): squared jumps at owners' borders and their number, elsewhere and their number."""
    found = np.zeros((len(latents), 4))
    for k, (canvas, owned) in enumerate(zip(latents, owner, strict=True)):
        for axis in (0, 1):
            squared = np.square(np.diff(canvas.astype(float), axis=axis + 1)).mean(axis=0)
            border = np.diff(owned, axis=axis) != 0
            found[k] += squared[border].sum(), border.sum(), squared[~border].sum(), (~border).sum()
    return found


def seam(drawn: NDArray[np.float64], real: NDArray[np.float64], weights: Weights) -> NDArray[np.float64]:
    """(B,): jumps at borders over those elsewhere, of drawn latents over that of real ones."""
    ratios = [
        total[:, 0] / total[:, 1] / (total[:, 2] / total[:, 3]) for total in (weights @ drawn, weights @ real)
    ]
    return ratios[0] / ratios[1]


def patches_of(tissue_: Tissue, side: int) -> Tissue:
    """The four crops of `side` pixels around the centre of each canvas' quarters."""
    size = tissue_.maps.shape[1]
    starts = [size // 4 - side // 2, 3 * size // 4 - side // 2]
    boxes = [np.s_[:, y : y + side, x : x + side] for y in starts for x in starts]
    return Tissue(
        np.concatenate([tissue_.pictures[box] for box in boxes]),
        np.concatenate([tissue_.maps[box] for box in boxes]),
        np.tile(tissue_.source, len(boxes)),
    )
