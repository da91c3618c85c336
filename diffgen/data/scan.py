"""The first look at a source: can it be used, how large is it, where is its tissue, what is in its mask."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffgen.config import Settings
from diffgen.data.classes import Classes
from diffgen.data.slides import MAX_ENLARGEMENT, LeftOut, Slide, load_mask, mask_values, open_slide
from diffgen.data.sources import Source
from diffgen.data.stain import sample
from diffgen.data.tissue import TISSUE_UM, Mask, tissue_mask


@dataclass(frozen=True)
class Scan:
    """What is known of a source before it is cut; sizes in pixels of the training images."""

    source: Source
    mpp: tuple[float, float]
    assumed: bool
    width: int
    height: int
    tissue: Mask
    """Of a label map: where it is known."""
    mask_values: tuple[int, ...] = ()
    stains: NDArray[np.float32] | None = None
    """(n, 2) haematoxylin and eosin, where the source gets its labels from the stains."""


def scan(source: Source, settings: Settings, classes: Classes) -> Scan:
    """Open a source and look at it as a whole. Raises `LeftOut` with the reason if it cannot be used."""
    prepare = settings.prepare
    slide, assumed = open_slide(source.path, prepare.assume_mpp, source.is_map)
    values: tuple[int, ...] = ()
    stains = None
    if source.is_map:
        um = settings.mask_model.pixel_um
        side = settings.mask_model.patch_pixels * settings.mask_pixel_px
        _check_scale(slide, um, f"mask pixels of {um:g} µm", prepare.mpp, side, "a mask patch")
        known = classes.read(source, slide, 0, 0, *slide.size(um), um)
        assert known is not None, "a label map has labels"
        tissue, values = known > 0, tuple(mask_values(load_mask(source.path)))
    else:
        most = MAX_ENLARGEMENT * prepare.mpp
        _check_scale(slide, most, f"{prepare.mpp:g}", prepare.mpp, settings.widest_patch_px, "an image patch")
        if source.mask:
            mask = load_mask(source.mask)
            if mask.shape[::-1] != slide.pixels.size:
                raise LeftOut("mask is {1}x{0}, image is {2}x{3}".format(*mask.shape, *slide.pixels.size))
            values = tuple(mask_values(mask))
        tissue = tissue_mask(slide.read(0, 0, *slide.size(TISSUE_UM), TISSUE_UM), TISSUE_UM)
        if prepare.labels == "stain" and not source.mask and tissue.any():
            stains = sample(slide, tissue)
    if not tissue.any():
        raise LeftOut("nothing in it is known" if source.is_map else "no tissue")
    return Scan(source, slide.mpp, assumed, *slide.size(prepare.mpp), tissue, values, stains)


def _check_scale(slide: Slide, coarsest: float, wanted: str, mpp: float, least: int, patch: str) -> None:
    """`LeftOut` where pixels are larger than `coarsest` µm, or a side has fewer than `least` of `mpp` µm."""
    if max(slide.mpp) > coarsest:
        raise LeftOut(f"{max(slide.mpp):.3g} µm per pixel is too coarse for {wanted}")
    if min(slide.size(mpp)) < least:
        raise LeftOut(f"smaller than {patch} ({least} px at {mpp:g} µm per pixel)")
