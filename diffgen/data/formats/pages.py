"""Regions of a TIFF's page without the rest of it: rows of what is not compressed, else tiles or strips."""

import os
from collections import OrderedDict
from math import ceil
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from diffgen.data.formats.base import CACHED

Array = NDArray[np.uint8]


class PageReader(Protocol):
    """A page: 8-bit samples, together or apart."""

    def read(self, left: int, top: int, right: int, bottom: int) -> Array:
        """(bottom - top, right - left, samples) of the region, which lies within the page."""


class Bytes:
    """A file that several threads and forked processes read from: it has no position."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("rb")

    def read(self, offset: int, size: int) -> bytes:
        data = os.pread(self.file.fileno(), size, offset)
        if len(data) < size:
            raise EOFError("it ends too early")
        return data


class SegmentCache:
    """The parts of a file that were decoded last, up to `CACHED` bytes; the last one whatever its size."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, int], Array] = OrderedDict()
        self._lock = Lock()
        self._bytes = 0

    def get(self, key: tuple[int, int]) -> Array | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: tuple[int, int], part: Array) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = part
                self._bytes += part.nbytes
            while self._bytes > CACHED and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes


class RawPage:
    """A page that is not compressed and lies in one piece, from `offset` on."""

    def __init__(self, source: Bytes, page: Any, offset: int) -> None:
        self.source, self.offset = source, offset
        self.planes, _, self.height, self.width, self.samples = page.shaped

    def read(self, left: int, top: int, right: int, bottom: int) -> Array:
        planes = [self._plane(plane, left, top, right, bottom) for plane in range(self.planes)]
        return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)

    def _plane(self, plane: int, left: int, top: int, right: int, bottom: int) -> Array:
        size = (right - left) * self.samples
        out = np.empty((bottom - top, size), np.uint8)
        for row in range(top, bottom):
            start = ((plane * self.height + row) * self.width + left) * self.samples
            out[row - top] = np.frombuffer(self.source.read(self.offset + start, size), np.uint8)
        return out.reshape(bottom - top, right - left, self.samples)


class SegmentedPage:
    """A page of tiles or strips, decoded one by one. A tile that is not there is `blank`."""

    def __init__(self, source: Bytes, page: Any, blank: int, cache: SegmentCache) -> None:
        self.source, self.blank, self.cache = source, blank, cache
        key = page.keyframe
        self.decode = key.decode
        self.offsets, self.counts = tuple(page.dataoffsets), tuple(page.databytecounts)
        self.arguments: dict[str, Any] = {}
        if key.compression in {6, 7, 34892, 33007}:  # the kinds of JPEG
            self.arguments = {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader}
        self.planes, _, self.height, self.width, self.samples = key.shaped
        self.rows, self.columns = segment_of(key)
        self.across, self.down = ceil(self.width / self.columns), ceil(self.height / self.rows)

    def read(self, left: int, top: int, right: int, bottom: int) -> Array:
        shape = (bottom - top, right - left, self.samples * self.planes)
        out = np.full(shape, self.blank, np.uint8)
        for plane in range(self.planes):
            band = slice(plane * self.samples, (plane + 1) * self.samples)
            for row in range(top // self.rows, ceil(bottom / self.rows)):
                for column in range(left // self.columns, ceil(right / self.columns)):
                    part = self._segment((plane * self.down + row) * self.across + column)
                    if part is None:
                        continue
                    y, x = row * self.rows, column * self.columns
                    y0, x0 = max(y, top), max(x, left)
                    y1, x1 = min(y + part.shape[0], bottom), min(x + part.shape[1], right)
                    out[y0 - top : y1 - top, x0 - left : x1 - left, band] = part[
                        y0 - y : y1 - y, x0 - x : x1 - x
                    ]
        return out

    def _segment(self, index: int) -> Array | None:
        if not self.counts[index]:
            return None
        key = (id(self), index)
        part = self.cache.get(key)
        if part is None:
            data = self.source.read(self.offsets[index], self.counts[index])
            decoded = self.decode(data, index, **self.arguments)[0]
            if decoded is None:
                return None
            part = decoded[0]
            self.cache.put(key, part)
        return part


def segment_of(page: Any) -> tuple[int, int]:
    """Rows and columns of a page's tiles or strips."""
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip, page.imagelength), page.imagewidth
