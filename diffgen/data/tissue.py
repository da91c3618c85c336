"""Where there is tissue: a mask at a low resolution, by optical density.

Never empty on a picture that is all tissue and never full on one that is all glass: Otsu's threshold
splits any histogram in two, so it only counts within absolute bounds.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label as components
from skimage.filters import threshold_otsu

from diffgen.labels import Picture

Mask = NDArray[np.bool_]
"""(H, W) true where there is tissue."""

TISSUE_UM = 8.0
"""Side of a pixel of the tissue mask in µm."""
GLASS, STAINED = 0.07, 0.18
"""Optical density: below the first it is glass, above the second it is tissue, whatever Otsu says."""
MIN_AREA_UM2 = 2500.0
"""Smaller specks are dust and smaller holes belong to the tissue."""


def optical_density(picture: Picture) -> NDArray[np.float32]:
    """(H, W, 3) RGB → (H, W) optical density (base 10) of the channel that is absorbed most.

    A stained pixel is dark or saturated: both make one channel small.
    """
    density: NDArray[np.float32] = -np.log10((picture.min(axis=2).astype(np.float32) + 1) / 256)
    return density


def tissue_mask(picture: Picture, um: float) -> Mask:
    """(H, W, 3) RGB at `um` µm per pixel → (H, W) bool."""
    density = optical_density(picture)
    otsu = float(threshold_otsu(density)) if np.ptp(density) > 0 else STAINED
    mask = density > min(max(otsu, GLASS), STAINED)
    area = min(MIN_AREA_UM2 / um**2, mask.size / 4)
    return ~_without_small(~_without_small(mask, area), area)


def _without_small(mask: Mask, area: float) -> Mask:
    """The mask without its connected parts of fewer than `area` pixels."""
    parts, _ = components(mask)
    large = np.bincount(parts.reshape(-1)) >= area
    large[0] = False
    kept: Mask = large[parts]
    return kept
