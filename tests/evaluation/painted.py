"""Sets of painted tissue whose masks are known: what small networks learn in a second."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from diffgen.evaluation.images import RegionSet, open_images
from diffgen.labels import Labels

NAMES = ("unknown", "nuclei", "stroma")
COLOURS = np.array([[120, 120, 120], [90, 60, 140], [235, 190, 215]])


def tissue(seed: int, side: int, empty: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Picture and mask; `empty`: stroma alone. Every third of the height, a line is unknown."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.standard_normal((side, side)), 3, mode="wrap")
    mask = np.where((field > 0) & (not empty), 1, 2).astype(np.uint8)
    picture = COLOURS[mask] + rng.normal(0, 12, (side, side, 3))
    mask[:: side // 3] = 0
    return picture.clip(0, 255).astype(np.uint8), mask


def painted(
    folder: Path, count: int, seed: int, shuffled: bool = False, empty: int = 0, side: int = 32
) -> RegionSet:
    """A folder of images; `shuffled`: with the mask of the one before; `empty`: so many have no nuclei."""
    folder.mkdir(parents=True)
    pairs = [tissue(1000 * seed + k, side, empty=k < empty) for k in range(count)]
    for k, (picture, _) in enumerate(pairs):
        Image.fromarray(picture).save(folder / f"{k:03d}.png")
        Image.fromarray(pairs[k - shuffled][1]).save(folder / f"{k:03d}_mask.png")
    Labels(NAMES).save(folder / "labels.json")
    images = open_images(str(folder))
    return RegionSet(images, tuple(images.regions(side)))
