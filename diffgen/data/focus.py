"""Where a slide is out of focus: tissue without the fine detail that goes with its coarse detail.

Per tile of 96 µm, read at 2 µm per pixel: the contrast of details below 2 µm over that of details of 2 to
6 µm. Out of focus the first is lost and the second is not yet. It is compared within the slide, as scanners
and stains differ, and with an absolute bound that real tissue in focus keeps (docs/slides.md).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_opening, gaussian_filter
from scipy.ndimage import label as components

from diffgen.data.slides import Slide
from diffgen.data.tissue import GLASS, STAINED, TISSUE_UM, Mask, optical_density

FOCUS_UM = 2.0
TILE = 12
"""Side of a tile in pixels of the tissue mask: 96 µm."""
FINE, COARSE = 1.0, 3.0
"""Sigmas between which details are coarse, in pixels of FOCUS_UM; finer ones are fine."""
MARGIN = 12  # pixels of FOCUS_UM that the filters reach
BLOCK = 16  # tiles in a row that are read at once
SOFTEST, OF_SHARP, SHARP = 0.45, 0.5, 0.75
"""A tile is out of focus below this sharpness, and below this share of the slide's at this quantile."""
LEAST_TILES = 9
"""Tiles in one piece that are left out: some hundred µm across."""
COARSEST = 1.2
"""µm per pixel above which a file has not the detail to tell."""


def blurred(slide: Slide, tissue: Mask) -> Mask:
    """Where the tissue (H, W; at TISSUE_UM) is out of focus, as a mask of the same size.

    It reads the slide at FOCUS_UM, where there is tissue. Empty where the file is too coarse to tell, and
    on pictures that are smaller than what would be left out.
    """
    nothing = np.zeros_like(tissue)
    if max(slide.mpp) > COARSEST or tissue.size < LEAST_TILES * TILE**2 or not tissue.any():
        return nothing
    shape = (-(-tissue.shape[0] // TILE), -(-tissue.shape[1] // TILE))
    sharp = np.full(shape, np.nan, np.float32)
    for top, left in _blocks(tissue):
        block = _sharpness(slide, top, left)
        sharp[top : top + BLOCK, left : left + BLOCK] = block[: shape[0] - top, : shape[1] - left]
    filled = _filled(tissue, shape) & ~np.isnan(sharp)
    if not filled.any():
        return nothing
    soft = filled & (sharp < min(SOFTEST, OF_SHARP * float(np.quantile(sharp[filled], SHARP))))
    parts, _ = components(binary_opening(soft, np.ones((2, 2))))
    large = np.bincount(parts.reshape(-1)) >= LEAST_TILES
    large[0] = False
    blurry = large[parts]
    # Tiles at the rim of the tissue, which hold too little of it to tell, go with their neighbours.
    blurry |= binary_dilation(blurry, np.ones((3, 3))) & ~filled
    tiles = np.kron(blurry, np.ones((TILE, TILE), np.bool_))
    found: Mask = tiles[: tissue.shape[0], : tissue.shape[1]] & tissue
    return found


def _filled(tissue: Mask, shape: tuple[int, int]) -> Mask:
    """Tiles of which half is tissue."""
    padded = np.zeros((shape[0] * TILE, shape[1] * TILE), np.bool_)
    padded[: tissue.shape[0], : tissue.shape[1]] = tissue
    tiles: Mask = padded.reshape(shape[0], TILE, shape[1], TILE).mean(axis=(1, 3)) >= 0.5
    return tiles


def _blocks(tissue: Mask) -> Iterator[tuple[int, int]]:
    """Top and left, in tiles, of the blocks with tissue."""
    side = BLOCK * TILE
    for y in range(0, tissue.shape[0], side):
        for x in range(0, tissue.shape[1], side):
            if tissue[y : y + side, x : x + side].any():
                yield y // TILE, x // TILE


def _sharpness(slide: Slide, top: int, left: int) -> NDArray[np.float32]:
    """(BLOCK, BLOCK) sharpness of the tiles from there; NaN where a tile holds too little, or ends."""
    side = round(TILE * TISSUE_UM / FOCUS_UM)
    width, height = slide.size(FOCUS_UM)
    x0, y0 = max(0, left * side - MARGIN), max(0, top * side - MARGIN)
    x1, y1 = (min(n, (a + BLOCK) * side + MARGIN) for n, a in ((width, left), (height, top)))
    sharp = np.full((BLOCK, BLOCK), np.nan, np.float32)
    if x1 <= x0 or y1 <= y0:
        return sharp
    picture = slide.read(x0, y0, x1 - x0, y1 - y0, FOCUS_UM)
    density = -np.log10((picture.mean(axis=2, dtype=np.float32) + 1) / 256)
    fine, coarse = (gaussian_filter(density, sigma) for sigma in (FINE, COARSE))
    energies = (density - fine) ** 2, (fine - coarse) ** 2
    stained = optical_density(picture) > (GLASS + STAINED) / 2
    for row in range(BLOCK):
        for column in range(BLOCK):
            y, x = (top + row) * side - y0, (left + column) * side - x0
            tile = slice(y, y + side), slice(x, x + side)
            here = stained[tile]
            if here.shape == (side, side) and here.mean() >= 0.5:
                detail, structure = (float(energy[tile][here].mean()) for energy in energies)
                sharp[row, column] = np.sqrt(detail / (structure + 1e-9))
    return sharp
