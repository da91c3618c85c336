"""Figures of large canvases against real images: order at a distance, and what is left of borders."""

import numpy as np
from numpy.typing import NDArray

from benchmarks.tissue import Tissue
from diffgen.evaluation import structure
from diffgen.evaluation.bootstrap import Weights
from diffgen.evaluation.structure import moments, seam_ratio

LAGS = (4, 8, 16, 32, 48, 64, 96, 128, 192)
"""Distances in pixels at which luminance is held against itself."""


def luminance_moments(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(N, 2 + lags): `structure.moments` of each picture."""
    lags = [lag for lag in LAGS if lag < pictures.shape[1]]
    return np.stack([moments(picture, lags) for picture in pictures])


def owners_borders(owned: NDArray[np.int32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where neighbouring pixels have different owners, one above the other and side by side."""
    return np.diff(owned, axis=0) != 0, np.diff(owned, axis=1) != 0


def jumps(latents: NDArray[np.float32], owner: list[NDArray[np.int32]]) -> NDArray[np.float64]:
    """(N, 4): squared jumps at owners' borders and their number, elsewhere and their number."""
    return np.stack(
        [structure.jumps(one, owners_borders(owned)) for one, owned in zip(latents, owner, strict=True)]
    )


def seam(drawn: NDArray[np.float64], real: NDArray[np.float64], weights: Weights) -> NDArray[np.float64]:
    """(B,): jumps at borders over those elsewhere, of drawn latents over that of real ones."""
    return seam_ratio(drawn, weights) / seam_ratio(real, weights)


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
