"""Images too large for memory as rows, and their pyramids, each level halved from the one before.

A level is read once, from top to bottom; while it is, its half is written to a temporary file, from which
the next one is read. So memory holds a few rows of tiles, and the disk a third of the image.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""(h, W) or (h, W, 3): rows of a level."""
ROWS = 512  # that are halved, or read back, at once


@dataclass
class PyramidLevel:
    """A level of a pyramid; its rows are taken once, and all of them before the next level's."""

    height: int
    width: int
    bands: Iterator[Pixels]

    def cut(self, spans: list[tuple[int, int]]) -> Iterator[Pixels]:
        """Rows (start, end) that begin in rising order, and may overlap."""
        held, begin = next(self.bands), 0
        for start, end in spans:
            held, begin = held[start - begin :], start
            if len(held) < end - start:
                parts = [held]
                while sum(map(len, parts)) < end - start:
                    parts.append(next(self.bands))
                held = np.concatenate(parts)
            yield held[: end - start]


def levels(
    height: int,
    width: int,
    bands: Iterator[Pixels],
    halve: Callable[[Pixels], Pixels],
    count: int,
    scratch: Path,
) -> Iterator[PyramidLevel]:
    """`count` levels from the finest on, each of half the size (rounded up) of the one before."""
    for number in range(count):
        built = scratch / f"level-{number + 1}"
        if number < count - 1:
            bands = _halving(bands, halve, built)
        level = PyramidLevel(height, width, bands)
        yield level
        for _ in bands:  # whoever took the last row has not run it to its end
            pass
        (scratch / f"level-{number}").unlink(missing_ok=True)
        if number < count - 1:
            height, width = -(-height // 2), -(-width // 2)
            bands = _stored(built, height, width)


def half_picture(rows: Pixels) -> Pixels:
    """(2h, 2w, 3) → (h, w, 3): the mean of each block of four, rounded."""
    total = rows[::2, ::2].astype(np.uint16) + rows[1::2, ::2] + rows[::2, 1::2] + rows[1::2, 1::2]
    halved: Pixels = ((total + 2) // 4).astype(np.uint8)
    return halved


def half_label_map(rows: Pixels) -> Pixels:
    """(2h, 2w) → (h, w): of each block the pixel below its centre, so that no class is made up."""
    return rows[1::2, 1::2]


def _halving(bands: Iterator[Pixels], halve: Callable[[Pixels], Pixels], path: Path) -> Iterator[Pixels]:
    """The same bands, while their half goes to a file. At an odd end the last row or column counts twice."""
    with path.open("wb") as file:
        rest: Pixels | None = None
        for band in bands:
            yield band
            for start in range(0, len(band), ROWS):
                rows = band[start : start + ROWS]
                rows = rows if rest is None else np.concatenate([rest, rows])
                even = len(rows) // 2 * 2
                rest = rows[even:].copy() if even < len(rows) else None
                if even:
                    file.write(halve(_even(rows[:even])).tobytes())
        if rest is not None:
            file.write(halve(_even(np.concatenate([rest, rest]))).tobytes())


def _even(rows: Pixels) -> Pixels:
    return np.concatenate([rows, rows[:, -1:]], axis=1) if rows.shape[1] % 2 else rows


def _stored(path: Path, height: int, width: int) -> Iterator[Pixels]:
    """The rows of a level that `_halving` wrote."""
    line = path.stat().st_size // height
    shape = (-1, width) if line == width else (-1, width, 3)
    with path.open("rb") as file:
        while data := file.read(ROWS * line):
            yield np.frombuffer(data, np.uint8).reshape(shape)
