"""Where there is tissue: a mask at a low resolution, by optical density.

Never empty on a picture that is all tissue and never full on one that is all glass: Otsu's threshold
splits any histogram in two, so it only counts within absolute bounds.

Black outside the scan and pen marks are no tissue. Their bounds are those that mark next to nothing of real
H&E (docs/slides.md has the figures): what is doubtful stays tissue.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_opening, binary_propagation
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
FOREIGN_AREA_UM2 = 10_000.0
"""Black areas and pen marks are at least so large: a stroke is half a millimetre wide."""
EDGE_UM, REACH_UM = 8.0, 40.0
"""What borders on them is mixed with them: so far all of it, and so far what has their colour, if fainter."""
BLACK = 16
"""Grey level that no channel exceeds where nothing was scanned; JPEG leaves it some levels above 0."""
INK, FAINT_INK = (0.15, 1.2), (0.06, 1.1)
"""By how much, and how many times, blue and green inks absorb more red than green; stains do not."""
BLACK_INK, FAINT_BLACK_INK = (0.5, 0.8), (0.35, 0.75)
"""How much black ink absorbs of any channel, and of red and blue relative to green; stains: little blue."""

Bounds = tuple[float, float]


def optical_density(picture: Picture) -> NDArray[np.float32]:
    """(H, W, 3) RGB → (H, W) optical density (base 10) of the channel that is absorbed most.

    A stained pixel is dark or saturated: both make one channel small.
    """
    density: NDArray[np.float32] = -np.log10((picture.min(axis=2).astype(np.float32) + 1) / 256)
    return density


def tissue_mask(picture: Picture, um: float) -> Mask:
    """(H, W, 3) RGB at `um` µm per pixel → (H, W) bool."""
    density = optical_density(picture)
    foreign = _union(_foreign(picture, um).values(), density.shape)
    seen = density[~foreign]
    otsu = float(threshold_otsu(seen)) if seen.size and np.ptp(seen) > 0 else STAINED
    mask = (density > min(max(otsu, GLASS), STAINED)) & ~foreign
    area = min(MIN_AREA_UM2 / um**2, mask.size / 4)
    return ~_without_small(~_without_small(mask, area), area) & ~foreign


def not_tissue(picture: Picture, um: float) -> dict[str, float]:
    """Share of a picture, (H, W, 3) at `um` µm per pixel, that is neither glass nor tissue, by what it is.

    Keys are "black" and "pen"; one that is nowhere in it is absent.
    """
    return {name: float(mask.mean()) for name, mask in _foreign(picture, um).items() if mask.any()}


def _foreign(picture: Picture, um: float) -> dict[str, Mask]:
    """What is neither glass nor tissue, by its name."""
    area = min(FOREIGN_AREA_UM2 / um**2, picture.shape[0] * picture.shape[1] / 4)
    edge, reach = max(1, round(EDGE_UM / um)), max(1, round(REACH_UM / um))
    black = _without_small(picture.max(axis=2) <= BLACK, area)
    density = -np.log10((picture.astype(np.float32) + 1) / 256)
    pen = _without_small(binary_opening(_ink(density, INK, BLACK_INK), np.ones((3, 3))) & ~black, area)
    if pen.any():
        near = binary_dilation(pen, iterations=reach)
        pen = binary_propagation(pen, mask=near & _ink(density, FAINT_INK, FAINT_BLACK_INK))
        pen = ~_without_small(~pen, area)
    masks = {"black": black, "pen": pen}
    return {
        name: binary_dilation(mask, np.ones((3, 3)), iterations=edge) if mask.any() else mask
        for name, mask in masks.items()
    }


def _ink(density: NDArray[np.float32], coloured: Bounds, dark: Bounds) -> Mask:
    """Where the densities (H, W, 3) are those of blue, green or black ink."""
    red, green, blue = (density[..., channel] for channel in range(3))
    colour = (red - green > coloured[0]) & (red > coloured[1] * green)
    grey = (red > dark[1] * green) & (blue > dark[1] * green)
    ink: Mask = colour | (grey & (density.min(axis=2) > dark[0]))
    return ink


def _union(masks: Iterable[Mask], shape: tuple[int, ...]) -> Mask:
    union = np.zeros(shape, np.bool_)
    for mask in masks:
        union |= mask
    return union


def _without_small(mask: Mask, area: float) -> Mask:
    """The mask without its connected parts of fewer than `area` pixels."""
    parts, _ = components(mask)
    large = np.bincount(parts.reshape(-1)) >= area
    large[0] = False
    kept: Mask = large[parts]
    return kept
