"""Opening source files, and reading their pixels at a wanted µm per pixel.

Whatever the format (`formats/`), a `Slide` is a grid of pixels of a wanted size in µm: x and y count from the
top left corner of the file. What is read of a pixel does not depend on the region it is read with (but for
the rounding of a grey level). Every way in which a file can fail ends in `LeftOut`, with the reason.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from diffgen.data.formats import plain, tiff
from diffgen.data.formats.base import SUPPORT, Box, Header, LeftOut, Pixels, Rectangle, failing_as_left_out
from diffgen.data.formats.colour import InSRGB
from diffgen.data.formats.scale import Mpp, of_tiff, settled
from diffgen.data.formats.scanners import GENERIC, OpenSlidePixels, vendor_of
from diffgen.labels import Picture
from diffgen.shards import open_picture, shown_size

MAX_ENLARGEMENT = 2.0
"""A file whose pixels are larger than this many wanted pixels has not the detail that is asked of it."""
LARGE = 2**26  # bytes of a picture that is not held beside another


@contextmanager
def reading() -> Iterator[None]:
    """Turn what the readers of the formats raise on a bad file into `LeftOut`."""
    try:
        with failing_as_left_out():
            yield
    except LeftOut:
        _open.cache_clear()  # an OpenSlide that failed once fails for ever, also where the file is sound
        raise


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
    mpp: Mpp
    offset: tuple[int, int] = (0, 0)
    """Where the part that was scanned begins, in level-0 pixels (`openslide.bounds-x`, `-y`): some programs
    count annotations and masks from there."""
    extent: tuple[int, int] | None = None
    """Width and height of that part; None: all of it."""

    @property
    def bounds(self) -> Rectangle:
        """Left, top, width and height of the part that was scanned, in level-0 pixels."""
        return (*self.offset, *(self.extent or self.pixels.size))

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


def open_slide(
    path: str,
    assume_mpp: float | None = None,
    is_map: bool = False,
    override: float | None = None,
    icc: bool = False,
) -> tuple[Slide, bool]:
    """Open a picture or a label map; also says whether its µm per pixel are assumed.

    `override` are µm per pixel that win over the file's own, `assume_mpp` those where it has none; with `icc`
    colours are those of its profile, in sRGB. Raises `LeftOut`, with the reason.
    """
    with reading():
        mtime = Path(path).stat().st_mtime_ns
        opened = Opened(_open_map(path)) if is_map else _open(path, mtime, icc)
    mpp, assumed = settled(opened.pixels.mpp, assume_mpp, override, Path(path).name)
    return Slide(opened.pixels, mpp, opened.offset, opened.extent), assumed


def header(path: str) -> Header:
    """What a file says of itself, without decoding a pixel. Raises `LeftOut` if it cannot be read at all."""
    with failing_as_left_out():
        kind = _kind(path)
        if kind == "plain":
            return plain.header(path)
        return tiff.header(path) if kind == "tiff" else _scanned(path).header()


@dataclass(frozen=True)
class Opened:
    """The pixels of a file, and which part of them was scanned."""

    pixels: Pixels
    offset: tuple[int, int] = (0, 0)
    extent: tuple[int, int] | None = None


@lru_cache(maxsize=2)  # the works of one source follow one another
def _open(path: str, _mtime: int, icc: bool) -> Opened:
    kind = _kind(path)
    if kind == "scanner":
        slide = _scanned(path)
        said, profile = slide.header(), slide.profile() if icc else None
        return Opened(InSRGB(slide, profile) if profile else slide, said.offset, said.extent)
    said = plain.header(path) if kind == "plain" else tiff.header(path)
    if said.problem:
        raise LeftOut(said.problem)
    if said.memory > LARGE:
        _open.cache_clear()
    return Opened(plain.open_plain(path, icc) if kind == "plain" else tiff.open_tiff(path, icc))


def _kind(path: str) -> str:
    """By which module a file is read: "plain", "tiff" or "scanner"; by its content, as suffixes lie."""
    with Path(path).open("rb") as file:
        start = file.read(16)
    if tiff.is_tiff(start):
        return "tiff" if vendor_of(path) in {None, GENERIC} else "scanner"
    begins = start.startswith(plain.SIGNS) and Path(path).suffix.lower() != ".mrxs"  # whose index is a JPEG
    return "plain" if begins else "scanner"


def _scanned(path: str) -> OpenSlidePixels:
    slide = OpenSlidePixels(path)
    with Path(path).open("rb") as file:
        start = file.read(16)
    if slide.mpp is None and tiff.is_tiff(start):
        with tifffile.TiffFile(path) as opened:
            slide.mpp = of_tiff(opened, opened.pages.first, 0, 0)
    return slide


def _open_map(path: str) -> NoPixels:
    with open_picture(path) as image:
        size, mpp = shown_size(image), plain.own_mpp(image)
    with Path(path).open("rb") as file:
        start = file.read(16)
    if tiff.is_tiff(start):
        with tifffile.TiffFile(path) as opened:
            mpp = of_tiff(opened, opened.pages.first, 0, 0)
    return NoPixels(size, mpp)
