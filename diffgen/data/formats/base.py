"""What all file formats share: a grid of level-0 pixels, what a header says, and how a file fails.

What is read of a pixel does not depend on the region it is read with (but for the rounding of a grey level).
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, floor
from typing import Protocol

import tifffile
from PIL import Image

from diffgen.errors import one_line

UNKNOWN_FORMAT: tuple[type[Exception], ...] = ()
FAILED: tuple[type[Exception], ...] = ()
try:
    from openslide import OpenSlideError, OpenSlideUnsupportedFormatError
except ImportError:  # pictures are read without it, on a machine that was not made for slides
    pass
else:
    UNKNOWN_FORMAT, FAILED = (OpenSlideUnsupportedFormatError,), (OpenSlideError,)

SUPPORT = 4  # output pixels read around a region, for the resampling filter (Lanczos reaches 3)
MAX_READ = 2**24  # pixels taken from a level at once: 64 MB
LAZY_MEMORY = 2**29
"""Bytes that reading a region takes of a file that is read in parts, whatever its size."""
MAX_WHOLE = 2**31
"""Bytes that reading a file may take: more, and it has to be converted."""
CACHED = 2**26
"""Bytes of decoded parts that are kept of a file."""
CONVERT = "convert it to a tiled pyramid: vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg"

Box = tuple[float, float, float, float]
Rectangle = tuple[int, int, int, int]


TURNED = "turned as its EXIF orientation says"
ONE_CHANNEL = "one channel: a picture of H&E has three; if it is a mask, name it as one (NAME_mask.png)"


class LeftOut(Exception):  # noqa: N818 (not an error of the run)
    """A file, or a part of one, that cannot be used; the message is the reason."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself before any pixel is decoded."""

    format: str
    """As a person would name it: "Aperio SVS", "OME-TIFF", "PNG"."""
    size: tuple[int, int]
    """Width and height of level 0 in pixels."""
    mpp: tuple[float, float] | None
    """µm per pixel (x, y), where the file gives them and they can be those of a microscope."""
    icc: str | None
    """What its colour profile calls itself."""
    channels: int
    memory: int
    """Bytes that reading regions of it takes in a process."""
    offset: tuple[int, int] = (0, 0)
    """Where `openslide.bounds-*` begin, in level-0 pixels."""
    extent: tuple[int, int] | None = None
    """Width and height of these bounds; None where there are none: all of level 0."""
    notes: tuple[str, ...] = ()
    """What was chosen among several: series, focal planes."""
    problem: str | None = None
    """Why it cannot be read as an H&E picture, with the remedy; None if it can."""


class Pixels(Protocol):
    """The level 0 of a file: size (width, height) and µm per pixel (x, y), if it gives them."""

    size: tuple[int, int]
    mpp: tuple[float, float] | None

    def take(self, box: Box, size: tuple[int, int]) -> Image.Image:
        """The box (left, top, right, bottom; level-0 pixels) as an RGB image of `size` (width, height)."""


class PyramidPixels:
    """A file that is read in parts, from the level next below the wanted scale."""

    size: tuple[int, int]
    mpp: tuple[float, float] | None
    downs: tuple[tuple[float, float], ...]
    """Level-0 pixels in a pixel of each level, across and down; ascending, and the first is (1, 1)."""
    rows_whole = False
    """Rows are decoded in whole: reading is split into rows rather than squares."""

    def region(self, level: int, left: int, top: int, width: int, height: int) -> Image.Image:
        """RGB of whole pixels of a level: within the level, but for a last pixel beyond its edge."""
        raise NotImplementedError

    def starts_at(self, _level: int, left: int, top: int) -> tuple[float, float]:
        """Where a region truly begins, in pixels of its level."""
        return left, top

    def take(self, box: Box, size: tuple[int, int]) -> Image.Image:
        scale = min((box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1])
        level = max((n for n, down in enumerate(self.downs) if max(down) <= scale * 1.01), default=0)
        dx, dy = self.downs[level]
        area = (box[2] - box[0]) / dx * ((box[3] - box[1]) / dy)
        axis = 1 if self.rows_whole and size[1] > 4 * SUPPORT else int(size[1] > size[0])
        if area > MAX_READ and size[axis] > 4 * SUPPORT:
            return self._halves(box, size, axis)
        left, top = floor(box[0] / dx), floor(box[1] / dy)
        x, y = self.starts_at(level, left, top)
        inner = (box[0] / dx - x, box[1] / dy - y, box[2] / dx - x, box[3] / dy - y)
        region = self.region(level, left, top, ceil(inner[2] - 1e-9), ceil(inner[3] - 1e-9))
        inner = (*inner[:2], min(inner[2], region.width), min(inner[3], region.height))
        return region.resize(size, Image.Resampling.LANCZOS, box=inner)

    def _halves(self, box: Box, size: tuple[int, int], axis: int) -> Image.Image:
        """In two parts, each read with a margin for the filter."""
        whole, first = size[axis], size[axis] // 2
        step = (box[axis + 2] - box[axis]) / whole
        picture = Image.new("RGB", size)
        for start, stop in ((0, first), (first, whole)):
            low, high = max(0, start - SUPPORT), min(whole, stop + SUPPORT)
            ends = (box[axis] + low * step, box[axis] + high * step)
            if axis == 0:
                part = self.take((ends[0], box[1], ends[1], box[3]), (high - low, size[1]))
                picture.paste(part.crop((start - low, 0, stop - low, size[1])), (start, 0))
            else:
                part = self.take((box[0], ends[0], box[2], ends[1]), (size[0], high - low))
                picture.paste(part.crop((0, start - low, size[0], stop - low)), (0, start))
        return picture


class ImagePixels:
    """An image held in memory."""

    def __init__(self, image: Image.Image, mpp: tuple[float, float] | None = None) -> None:
        self.image = on_white(image)
        self.size: tuple[int, int] = self.image.size
        self.mpp = mpp

    def take(self, box: Box, size: tuple[int, int]) -> Image.Image:
        return self.image.resize(size, Image.Resampling.LANCZOS, box=box)


@contextmanager
def failing_as_left_out() -> Iterator[None]:
    """Turn what the readers of the formats raise on a bad file into `LeftOut`."""
    try:
        yield
    except UNKNOWN_FORMAT as error:
        raise LeftOut("cannot be read (no known slide format, or damaged)") from error
    except (
        *FAILED,
        tifffile.TiffFileError,
        OSError,
        RuntimeError,  # the codecs of imagecodecs
        ValueError,
        SyntaxError,  # PIL on a broken PNG
        LookupError,  # tifffile on tags that are missing
        TypeError,  # tifffile on tags of another type than they should be
        ArithmeticError,
        EOFError,
        struct.error,
        zlib.error,
    ) as error:
        text = one_line(error).split(" '/")[0].split(" <")[0]
        raise LeftOut(f"cannot be read ({text})") from error


def in_parts(size: tuple[int, int], segment: int = 0) -> int:
    """Bytes that reading regions takes of a file of this size; `segment`: of its largest tile or strip."""
    return min(LAZY_MEMORY, 2**25 + 16 * size[0] * size[1]) + 2 * segment * (segment > CACHED)


def too_large(memory: int) -> str | None:
    """The line on a file that takes too much memory to read."""
    return f"takes {memory / 2**30:.1f} GB to read; {CONVERT}" if memory > MAX_WHOLE else None


def on_white(image: Image.Image) -> Image.Image:
    """The image as RGB, transparent parts white."""
    if image.mode.startswith("I") or image.mode == "F":
        raise ValueError(f"pixels are of mode {image.mode}, not 8-bit RGB")
    if image.mode in {"RGBA", "RGBa", "LA", "La", "PA"} or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            white = Image.new("RGBA", image.size, "white")
            white.alpha_composite(image)
            image = white
    return image if image.mode == "RGB" else image.convert("RGB")
