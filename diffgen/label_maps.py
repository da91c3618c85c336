"""A label map from its file to the latent grid, the same in training, synthesis and evaluation."""

import numpy as np
from numpy.typing import NDArray

from diffgen.errors import UserError
from diffgen.labels import LabelMap
from diffgen.shards import open_png


def read_png(data: bytes, name: str) -> LabelMap:
    """PNG → label map (H, W): one channel (or a palette's indices), ids up to 255; else `UserError`."""
    try:
        image = open_png(data, decode=True)
    except ValueError as error:
        raise UserError(f"{name}: not a readable PNG, it {error}") from error
    values = np.asarray(image)
    if values.ndim != 2 or values.max(initial=0) > 255:
        raise UserError(f"{name}: a label map has one channel and class ids up to 255, not {image.mode}")
    return values.astype(np.uint8)


def grid_pixels(length: int, factor: int) -> NDArray[np.int64]:
    """Image pixels at the centres of the blocks of the latent grid, on an axis of `length` image pixels."""
    return np.arange(factor // 2, length, factor)


def on_grid(label_map: LabelMap, factor: int) -> LabelMap:
    """Label map (H, W) at the latent grid (H/f, W/f) by nearest: the pixel at each block's centre."""
    rows, columns = (grid_pixels(length, factor) for length in label_map.shape)
    return label_map[rows[:, None], columns]
