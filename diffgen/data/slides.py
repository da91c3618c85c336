"""Opening source files, and reading their pixels and masks at a wanted µm per pixel.

Whatever the format, a `Slide` is a grid of pixels of a wanted size in µm: x and y count from the top
left corner of the file. What is read of a pixel does not depend on the region it is read with (but for
the rounding of a grey level). Every way in which a file can fail ends in `LeftOut`, with the reason.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from diffgen.data.sources import PLAIN, TIFF
from diffgen.errors import one_line
from diffgen.labels import Picture
from diffgen.shards import open_picture

try:
    import openslide
except ImportError:  # pictures are read without it, on a machine that was not made for slides
    openslide = None
UNKNOWN_FORMAT = (openslide.OpenSlideUnsupportedFormatError,) if openslide else ()
FAILED = (openslide.OpenSlideError,) if openslide else ()

PLAUSIBLE_MPP = (0.05, 20.0)
"""Outside of it a resolution tag is about printing (72 dpi is 353 µm)."""
MAX_ENLARGEMENT = 2.0
"""A file whose pixels are larger than this many wanted pixels has not the detail that is asked of it."""
SUPPORT = 4  # output pixels read around a region, for the resampling filter (Lanczos reaches 3)
MAX_READ = 2**25  # pixels taken from a level at once: 128 MB
NO_MPP = "gives no µm per pixel; say it with --mpp"

Box = tuple[float, float, float, float]
Values = NDArray[np.uint8] | NDArray[np.uint16]
"""(H, W) of a mask file, before they become class ids."""


class LeftOut(Exception):  # noqa: N818 (not an error of the run)
    """A file, or a part of one, that cannot be used; the message is the reason."""


class Pixels(Protocol):
    """The level 0 of a file: size (width, height) and µm per pixel (x, y), if it gives them."""

    size: tuple[int, int]
    mpp: tuple[float, float] | None

    def take(self, box: Box, size: tuple[int, int]) -> Image.Image:
        """The box (left, top, right, bottom; level-0 pixels) as an RGB image of `size` (width, height)."""


@contextmanager
def reading() -> Iterator[None]:
    """Turn what the readers of the formats raise on a bad file into `LeftOut`."""
    try:
        yield
    except UNKNOWN_FORMAT as error:
        raise LeftOut("cannot be read (no known slide format, or damaged)") from error
    except (
        *FAILED,
        tifffile.TiffFileError,
        OSError,
        ValueError,
        SyntaxError,  # PIL on a broken PNG
        LookupError,  # tifffile on tags that are missing
        ArithmeticError,
        EOFError,
        struct.error,
        zlib.error,
    ) as error:
        _open.cache_clear()  # an OpenSlide that failed once fails for ever, also where the file is sound
        text = one_line(error).split(" '/")[0].split(" <")[0]
        raise LeftOut(f"cannot be read ({text})") from error


class OpenSlidePixels:
    """A slide or a tiled TIFF, read by OpenSlide from the level next below the wanted scale."""

    def __init__(self, path: str) -> None:
        if openslide is None:
            raise LeftOut("cannot be read (OpenSlide is not installed)")
        self.slide = openslide.OpenSlide(path)
        self.size: tuple[int, int] = self.slide.dimensions
        properties = self.slide.properties
        x, y = properties.get(openslide.PROPERTY_NAME_MPP_X), properties.get(openslide.PROPERTY_NAME_MPP_Y)
        self.mpp = plausible(float(x or y), float(y or x)) if x or y else None

    def take(self, box: Box, size: tuple[int, int]) -> Image.Image:
        scale = min((box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1])
        level = self.slide.get_best_level_for_downsample(scale * 1.01)
        down = self.slide.level_downsamples[level]
        if (box[2] - box[0]) * (box[3] - box[1]) / down**2 > MAX_READ and max(size) > 1:
            return self._halves(box, size)
        left, top = int(floor(box[0] / down) * down), int(floor(box[1] / down) * down)
        inner = tuple((v - o) / down for v, o in zip(box, (left, top, left, top), strict=True))
        region = self.slide.read_region((left, top), level, (ceil(inner[2]), ceil(inner[3])))
        return on_white(region).resize(size, Image.Resampling.LANCZOS, box=inner)

    def _halves(self, box: Box, size: tuple[int, int]) -> Image.Image:
        axis = int(size[1] > size[0])
        first = size[axis] // 2
        middle = box[axis] + (box[axis + 2] - box[axis]) * first / size[axis]
        picture = Image.new("RGB", size)
        for start, stop, low, high in (
            (0, first, box[axis], middle),
            (first, size[axis], middle, box[axis + 2]),
        ):
            part = (low, box[1], high, box[3]) if axis == 0 else (box[0], low, box[2], high)
            extent = (stop - start, size[1]) if axis == 0 else (size[0], stop - start)
            picture.paste(self.take(part, extent), (start, 0) if axis == 0 else (0, start))
        return picture


class ImagePixels:
    """An image held in memory."""

    def __init__(self, image: Image.Image, mpp: tuple[float, float] | None = None) -> None:
        self.image = on_white(image)
        self.size: tuple[int, int] = self.image.size
        self.mpp = mpp

    def take(self, box: Box, size: tuple[int, int]) -> Image.Image:
        return self.image.resize(size, Image.Resampling.LANCZOS, box=box)


@dataclass
class NoPixels:
    """The level 0 of a label map without an image."""

    size: tuple[int, int]
    mpp: tuple[float, float] | None

    def take(self, box: Box, size: tuple[int, int]) -> Image.Image:
        raise AssertionError(f"a label map has no picture: box {box} at {size}")


@dataclass(frozen=True)
class Slide:
    """An open source: its level-0 pixels, and the µm per pixel (x, y) that hold for it."""

    pixels: Pixels
    mpp: tuple[float, float]

    def size(self, um: float) -> tuple[int, int]:
        """Width and height in whole pixels of `um` µm."""
        width, height = (int(n * mpp / um + 1e-6) for n, mpp in zip(self.pixels.size, self.mpp, strict=True))
        return max(1, width), max(1, height)

    def read(self, x: int, y: int, width: int, height: int, um: float) -> Picture:
        """RGB (height, width, 3) of the region at (x, y), all in pixels of `um` µm; `LeftOut` if damaged."""
        full = self.size(um)
        left, top = max(0, x - SUPPORT), max(0, y - SUPPORT)
        right, bottom = min(full[0], x + width + SUPPORT), min(full[1], y + height + SUPPORT)
        (sx, sy), (w, h) = (um / self.mpp[0], um / self.mpp[1]), self.pixels.size
        box = (left * sx, top * sy, min(w, right * sx), min(h, bottom * sy))
        with reading():
            picture = np.asarray(self.pixels.take(box, (right - left, bottom - top)))
        return picture[y - top : y - top + height, x - left : x - left + width]

    def read_mask(self, mask: Values, x: int, y: int, width: int, height: int, um: float) -> Values:
        """Values (height, width) of the region, from a mask of the size of level 0, by nearest."""
        columns = ((x + np.arange(width) + 0.5) * um / self.mpp[0]).astype(int).clip(0, mask.shape[1] - 1)
        rows = ((y + np.arange(height) + 0.5) * um / self.mpp[1]).astype(int).clip(0, mask.shape[0] - 1)
        return mask[rows[:, None], columns[None, :]]


def open_slide(path: str, assume_mpp: float | None = None, is_map: bool = False) -> tuple[Slide, bool]:
    """Open a picture or a label map; also says whether its µm per pixel are assumed.

    Raises `LeftOut`, with the reason.
    """
    with reading():
        pixels: Pixels = _open_map(path) if is_map else _open(path, Path(path).stat().st_mtime_ns)
    if pixels.mpp:
        return Slide(pixels, pixels.mpp), False
    if assume_mpp is None:
        raise LeftOut(NO_MPP)
    return Slide(pixels, (assume_mpp, assume_mpp)), True


@lru_cache(maxsize=2)  # the works of one source follow one another
def _open(path: str, _mtime: int) -> Pixels:
    suffix = Path(path).suffix.lower()
    if suffix in PLAIN:
        with open_picture(path) as image:
            image.load()
            return ImagePixels(image)
    try:
        return OpenSlidePixels(path)
    except UNKNOWN_FORMAT:
        if suffix not in TIFF:
            raise
    return _tiff(path)


def _open_map(path: str) -> NoPixels:
    with open_picture(path) as image:
        size = image.size
    if Path(path).suffix.lower() not in TIFF:
        return NoPixels(size, None)
    with tifffile.TiffFile(path) as tiff:
        return NoPixels(size, _scale(tiff.pages.first))


def _tiff(path: str) -> ImagePixels:
    """A TIFF that OpenSlide refuses (one strip, no tiles), from its first page."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        array, mpp = page.asarray(), _scale(page)
    if array.ndim == 3 and array.shape[0] in (3, 4) and array.shape[2] not in (3, 4):
        array = np.moveaxis(array, 0, 2)
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise ValueError(f"pixels are {array.dtype} {array.shape}, not 8-bit RGB")
    return ImagePixels(Image.fromarray(array), mpp)


def _scale(page: Any) -> tuple[float, float] | None:
    x, y = page.get_resolution("micrometer")
    return plausible(1 / x, 1 / y) if x and y else None


def plausible(x: float, y: float) -> tuple[float, float] | None:
    """µm per pixel as a file gives them, or None where they cannot be those of a microscope."""
    low, high = PLAUSIBLE_MPP
    return (x, y) if low <= x <= high and low <= y <= high else None


def on_white(image: Image.Image) -> Image.Image:
    """The image as RGB, transparent parts white."""
    if image.mode.startswith("I") or image.mode == "F":
        raise ValueError(f"pixels are of mode {image.mode}, not 8-bit RGB")
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white
    return image.convert("RGB")


def load_mask(path: str) -> Values:
    """Values (H, W) of a mask file: 8 or 16 bits, or the indices of a palette. `LeftOut` if it has others."""
    with reading():
        return _load_mask(path, Path(path).stat().st_mtime_ns)


def mask_values(mask: Values) -> list[int]:
    """The values that occur in a mask, in order."""
    strips = (mask[top : top + 1024] for top in range(0, len(mask), 1024))
    return sorted({int(value) for strip in strips for value in np.unique(strip)})


@lru_cache(maxsize=2)
def _load_mask(path: str, _mtime: int) -> Values:
    with open_picture(path) as image:
        if image.mode not in {"1", "L", "P"} and not image.mode.startswith("I"):
            raise ValueError(f"mask is {image.mode}, not of one channel")
        values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("mask has values beyond 16 bits")
    if values.max() < 256:
        return values.astype(np.uint8, copy=False)
    return values.astype(np.uint16, copy=False)
