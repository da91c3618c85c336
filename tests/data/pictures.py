"""Small pictures and slides for the tests: glass, stroma and a nest of nuclei."""

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

GLASS, STROMA, CELLS, NUCLEUS = (243, 243, 243), (232, 150, 185), (170, 110, 175), (80, 50, 120)


def tissue(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """(height, width, 3): glass on the left eighth, then stroma, with a nest of cells in the middle."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    picture = np.empty((height, width, 3), np.int16)
    picture[:] = STROMA
    nest = np.hypot(x - width * 0.6, y - height * 0.4) < min(width, height) * 0.25
    picture[nest] = CELLS
    picture[nest & (np.hypot(x % 16 - 8, y % 16 - 8) < 5)] = NUCLEUS
    picture[x < width // 8] = GLASS
    return np.clip(picture + rng.integers(-6, 7, picture.shape), 0, 255).astype(np.uint8)


def save_image(path: Path, picture: NDArray[np.uint8], mask: NDArray[np.integer] | None = None) -> Path:
    """An image, and its mask beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    if mask is not None:
        Image.fromarray(mask).save(path.with_name(path.stem + "_mask.png"))
    return path


def save_slide(
    path: Path, picture: NDArray[np.uint8], mpp: float | None, compression: str | None = None
) -> Path:
    """A tiled pyramid of two levels, as OpenSlide reads it, with or without resolution tags."""
    tags = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(picture, tile=(128, 128), photometric="rgb", compression=compression, subifds=0, **tags)
        half = np.asarray(Image.fromarray(picture).reduce(2))
        tiff.write(half, tile=(128, 128), photometric="rgb", subfiletype=1)
    return path
