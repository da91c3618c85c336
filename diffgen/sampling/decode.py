"""Latents → pixels in overlapping tiles under Hann weights that sum to one (paper, Appendix F).

The weights are normalised where tiles meet, so a constant stays a constant up to the border of the
canvas: unlike blending tiles one after another, nothing of a tile's seam is left.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffgen.labels import Picture
from diffgen.sampling.canvas import NonFiniteError


def tiles(length: int, tile: int, overlap: float) -> list[tuple[int, int]]:
    """Start and end of the tiles along one axis, evenly spread, each overlapping by `overlap` or more."""
    tile = min(tile, length)
    stride = max(1, int(tile * (1 - overlap)))
    count = 1 + -(-(length - tile) // stride)
    starts = np.linspace(0, length - tile, count).round().astype(int)
    return [(int(start), int(start) + tile) for start in starts]


def weights(length: int, spans: list[tuple[int, int]], factor: int) -> list[NDArray[np.float32]]:
    """Hann weight a pixel of each tile along one axis, divided by the sum over all tiles there."""
    windows = [
        np.sin(np.pi * (np.arange((b - a) * factor) + 0.5) / ((b - a) * factor)) ** 2 for a, b in spans
    ]
    total = np.zeros(length * factor)
    for (a, b), window in zip(spans, windows, strict=True):
        total[a * factor : b * factor] += window
    return [
        (window / total[a * factor : b * factor]).astype(np.float32)
        for (a, b), window in zip(spans, windows, strict=True)
    ]


def decode(
    decoder: Callable[[Tensor], Tensor],
    latents: NDArray[np.float32],
    factor: int,
    tile: int,
    overlap: float,
) -> Picture:
    """Latents (C, H, W) → RGB picture (H·f, W·f, 3), tile by tile; raises `NonFiniteError`."""
    _, height, width = latents.shape
    rows, columns = tiles(height, tile, overlap), tiles(width, tile, overlap)
    row_weights, column_weights = weights(height, rows, factor), weights(width, columns, factor)
    canvas = np.zeros((3, height * factor, width * factor), dtype=np.float32)
    for (y0, y1), wy in zip(rows, row_weights, strict=True):
        for (x0, x1), wx in zip(columns, column_weights, strict=True):
            crop = torch.from_numpy(np.ascontiguousarray(latents[None, :, y0:y1, x0:x1]))
            pixels = decoder(crop)[0].float().cpu().numpy()
            if not np.isfinite(pixels).all():
                raise NonFiniteError(f"decoding the tile at row {y0}, column {x0}: not a finite pixel")
            window = canvas[:, y0 * factor : y1 * factor, x0 * factor : x1 * factor]
            window += pixels * wy[:, None] * wx[None, :]
    return to_picture(canvas)


def to_picture(image: NDArray[np.float32]) -> Picture:
    """Image (3, H, W) in [−1, 1] → RGB (H, W, 3) uint8, clipped."""
    scaled = np.clip(np.rint((image + 1) * 127.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(scaled.transpose(1, 2, 0))


def from_picture(picture: Picture) -> NDArray[np.float32]:
    """RGB (H, W, 3) uint8 → image (3, H, W) in [−1, 1]."""
    return np.ascontiguousarray(picture.transpose(2, 0, 1)).astype(np.float32) / 127.5 - 1
