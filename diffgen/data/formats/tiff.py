"""TIFFs of any layout, photometric and compression: by parts with tifffile, else as a whole by Pillow."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from diffgen.data.formats import plain
from diffgen.data.formats.base import Header, LeftOut, Pixels, PyramidPixels, on_white, too_large
from diffgen.data.formats.colour import InSRGB, to_srgb
from diffgen.data.formats.layout import Layout, PlaceOfPage, layout
from diffgen.data.formats.pages import (
    Array,
    Bytes,
    PageReader,
    RawPage,
    SegmentCache,
    SegmentedPage,
)

SIGNS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How a TIFF begins."""


class TiffPixels(PyramidPixels):
    """A TIFF read by its tiles, strips or rows."""

    def __init__(self, found: Layout) -> None:
        self.found, self.size, self.mpp = found, found.header.size, found.header.mpp
        self._files: dict[str, Bytes] = {}
        cache, blank = SegmentCache(), 0 if found.samples == "cmyk" or found.inverted else 255
        self.readers = tuple(
            tuple(self._reader(place, blank, cache) for place in level) for level in found.levels
        )
        keys = [level[0].page.keyframe for level in found.levels]
        self.sizes = tuple((key.imagewidth, key.imagelength) for key in keys)
        self.downs = tuple((self.size[0] / width, self.size[1] / height) for width, height in self.sizes)
        self.rows_whole = not keys[0].is_tiled and not keys[0].is_memmappable
        self.table = _table(keys[0].colormap) if found.samples == "palette" else None

    def _reader(self, place: PlaceOfPage, blank: int, cache: SegmentCache) -> PageReader:
        handle = place.page.parent.filehandle  # an OME-TIFF may lie in several files
        source = self._files.setdefault(handle.path, Bytes(Path(handle.path)))
        if place.start is not None:
            return RawPage(source, place.page.keyframe, place.start)
        return SegmentedPage(source, place.page, blank, cache)

    def region(self, level: int, left: int, top: int, width: int, height: int) -> Image.Image:
        right, bottom = (
            min(a + n, most)
            for a, n, most in zip((left, top), (width, height), self.sizes[level], strict=True)
        )
        left, top = min(left, right - 1), min(top, bottom - 1)
        parts = [reader.read(left, top, right, bottom) for reader in self.readers[level]]
        return self._image(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2))

    def _image(self, samples: Array) -> Image.Image:
        if self.found.inverted:
            samples = 255 - samples
        if self.table is not None:
            return Image.fromarray(self.table[samples[..., 0]])
        if self.found.samples == "cmyk":
            return to_srgb(Image.fromarray(samples, "CMYK"), self.found.profile or b"")
        if self.found.samples == "alpha":
            return on_white(Image.fromarray(samples, "RGBA"))
        if self.found.samples == "premultiplied":
            white = samples[..., :3].astype(np.int16) + 255 - samples[..., 3:]
            return Image.fromarray(white.clip(0, 255).astype(np.uint8))
        return Image.fromarray(np.ascontiguousarray(samples[..., :3]))


def _table(colormap: NDArray[np.uint16]) -> Array:
    """(256, 3) colours of a palette (3, n)."""
    table = np.zeros((256, 3), np.uint8)
    table[: colormap.shape[1]] = (colormap // 256 if colormap.max() > 255 else colormap).T
    return table


def is_tiff(start: bytes) -> bool:
    """Whether a file begins as a TIFF does."""
    return start[:4] in SIGNS


def header(path: str) -> Header:
    """What a TIFF says of itself; raises what tifffile raises."""
    with tifffile.TiffFile(path) as tiff:
        found = layout(tiff)
    if found.samples != "pillow":
        return found.header
    memory = plain.header(path).memory
    return replace(found.header, memory=memory, problem=too_large(memory))


def open_tiff(path: str, icc: bool) -> Pixels:
    """The pixels of a TIFF. Raises `LeftOut`, or what tifffile and its codecs raise."""
    with tifffile.TiffFile(path) as tiff:
        found = layout(tiff)
        if found.header.problem:
            raise LeftOut(found.header.problem)
        if found.samples == "pillow":
            return plain.open_plain(path, icc, found.header.mpp)
        try:
            pixels = TiffPixels(found)
            pixels.region(0, 0, 0, 1, 1)  # is there a codec for it?
        except Exception as error:  # codecs raise many kinds; the reason is told where Pillow fails too
            return _by_pillow(path, icc, found, error)
    if icc and found.profile and found.samples != "cmyk":
        return InSRGB(pixels, found.profile)
    return pixels


def _by_pillow(path: str, icc: bool, found: Layout, error: Exception) -> Pixels:
    """What tifffile cannot decode, Pillow's libtiff may; if it cannot either, tifffile's reason is told."""
    try:
        said = plain.header(path)
        if said.problem is None and said.size == found.header.size:
            return plain.open_plain(path, icc, found.header.mpp)
    except (OSError, ValueError, SyntaxError):
        pass
    if "imagecodecs" in str(error):
        kind = found.levels[0][0].page.keyframe.compression.name
        raise LeftOut(f"its compression, {kind}, needs imagecodecs: pip install imagecodecs") from error
    raise error
