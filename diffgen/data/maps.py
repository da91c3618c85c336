"""Sources that are label maps without images: opened and read like slides, by nearest, without a picture."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffgen.data.slides import NO_MPP, Box, LeftOut, Slide, load_mask, open_slide, plausible, reading
from diffgen.data.sources import TIFF, Source
from diffgen.files import open_picture
from diffgen.labels import LabelMap


@dataclass
class Pixelless:
    """The level 0 of a file that has labels only."""

    size: tuple[int, int]
    mpp: tuple[float, float] | None

    def take(self, box: Box, size: tuple[int, int]) -> Image.Image:
        raise AssertionError(f"a label map has no picture: box {box} at {size}")


def open_source(source: Source, assume_mpp: float | None = None) -> tuple[Slide, bool]:
    """Open an image or a label map; also says whether its µm per pixel are assumed. Raises `LeftOut`."""
    if not source.is_map:
        return open_slide(source.path, assume_mpp)
    with reading(), open_picture(source.path) as image:
        size, dpi = image.size, image.info.get("dpi") if Path(source.path).suffix.lower() in TIFF else None
    mpp = plausible(25400 / float(dpi[0]), 25400 / float(dpi[1])) if dpi and all(dpi) else None
    if mpp is None:
        if assume_mpp is None:
            raise LeftOut(NO_MPP)
        return Slide(Pixelless(size, None), (assume_mpp, assume_mpp)), True
    return Slide(Pixelless(size, mpp), mpp), False


def read_labels(
    source: Source, slide: Slide, table: NDArray[np.uint8], box: tuple[int, int, int, int], um: float
) -> LabelMap:
    """Class ids (height, width) of the region (left, top, width, height) in pixels of `um` µm, by nearest.

    `table` (65536,) gives the class id of each value in the file. Raises `LeftOut` if it cannot be read.
    """
    assert source.mask is not None, "a source with labels has a mask"
    return table[slide.read_mask(load_mask(source.mask), *box, um)]
