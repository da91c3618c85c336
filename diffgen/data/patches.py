"""Where patches are cut, and on which side of the split: pure planning, no pixels are read.

Invariants: no pixel of a source is in a training patch and in a test patch, whatever their kinds. Either
whole sources go to one side, or each source is cut once and patches are laid within the parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from diffgen.data.tissue import Mask

Split = Literal["train", "test"]
Kind = Literal["image", "mask"]
Rectangle = tuple[int, int, int, int]
"""Left, top, width, height, in pixels of the training images."""

WHOLE_SOURCES = 10
"""From so many sources on, whole sources go to the test side."""


@dataclass(frozen=True)
class PatchBox:
    """A patch to be cut: place and size in pixels of the training images."""

    kind: Kind
    split: Split
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Extent:
    """What planning needs to know of a source: its size, and the mask of its tissue over the same area."""

    name: str
    width: int
    height: int
    tissue: Mask
    group: str = ""
    """Sources of one group stay on one side of the split; by default each is its own."""

    def bounding_box(self) -> Rectangle:
        """Smallest rectangle that holds all tissue, in pixels of the training images."""
        rows, columns = np.flatnonzero(self.tissue.any(axis=1)), np.flatnonzero(self.tissue.any(axis=0))
        sx, sy = self.width / self.tissue.shape[1], self.height / self.tissue.shape[0]
        left, top = int(columns[0] * sx), int(rows[0] * sy)
        return left, top, ceil((columns[-1] + 1) * sx) - left, ceil((rows[-1] + 1) * sy) - top


@dataclass(frozen=True)
class PatchLayout:
    """Sides and steps of the patches, in pixels of the training images."""

    stored: int
    """Side of a stored image patch; where a part is smaller, down to `least`."""
    least: int
    multiple: int
    """Sides that are cut down stay a multiple of it (the pixels of a latent pixel)."""
    step: int
    mask_side: int
    mask_step: int
    min_tissue: float


def grid(length: int, side: int, step: int) -> list[int]:
    """Starts of patches of `side` on a length: every `step`, the last one aligned to the end."""
    if side > length:
        return []
    starts = list(range(0, length - side + 1, step))
    return starts if starts[-1] == length - side else [*starts, length - side]


def split(extents: Sequence[Extent], test_share: float, least: int) -> list[dict[Split, Rectangle]]:
    """For each source, the part of it on either side of the split.

    With `WHOLE_SOURCES` or more, or where no source is long enough to be cut (a test part is at least
    `least` long), whole sources: those whose groups' names hash lowest. Else each source is cut once,
    across the longer axis of its tissue, at 1 − test_share of it; one too short to be cut is for training.
    """
    if test_share == 0:
        return [{"train": (0, 0, e.width, e.height)} for e in extents]
    cut = [_cut(extent, test_share, least) for extent in extents]
    if len(extents) < WHOLE_SOURCES and (len(extents) == 1 or any("test" in parts for parts in cut)):
        return cut
    groups = sorted({e.group or e.name for e in extents}, key=lambda name: sha1(name.encode()).digest())
    chosen = set(groups[: ceil(test_share * len(groups))])
    return [
        {"test" if (e.group or e.name) in chosen else "train": (0, 0, e.width, e.height)} for e in extents
    ]


def _cut(extent: Extent, test_share: float, least: int) -> dict[Split, Rectangle]:
    left, top, width, height = extent.bounding_box()
    start, length = (left, width) if width > height else (top, height)
    at = start + round((1 - test_share) * length)
    if start + length - at < least or at < least:
        return {"train": (0, 0, extent.width, extent.height)}
    if width > height:
        return {"train": (0, 0, at, extent.height), "test": (at, 0, extent.width - at, extent.height)}
    return {"train": (0, 0, extent.width, at), "test": (0, at, extent.width, extent.height - at)}


def lay(extent: Extent, parts: dict[Split, Rectangle], layout: PatchLayout, kind: Kind) -> list[PatchBox]:
    """Patches of a kind within the parts of a source that hold enough tissue, row by row."""
    total = integral(extent.tissue)
    patches = []
    for side, (left, top, width, height) in parts.items():
        if kind == "image":
            w, h = (min(layout.stored, n) // layout.multiple * layout.multiple for n in (width, height))
            step = layout.step
            if min(w, h) < layout.least:
                continue
        else:
            w = h = layout.mask_side
            step = layout.mask_step
        for y in grid(height, h, step):
            for x in grid(width, w, step):
                patch = PatchBox(kind, side, left + x, top + y, w, h)
                if tissue_share(total, extent, patch) >= max(layout.min_tissue, 1e-9):
                    patches.append(patch)
    return patches


def integral(tissue: Mask) -> NDArray[np.int64]:
    """(H + 1, W + 1) sums over all pixels above and to the left."""
    sums = np.zeros((tissue.shape[0] + 1, tissue.shape[1] + 1), np.int64)
    sums[1:, 1:] = tissue.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    return sums


def tissue_share(total: NDArray[np.int64], extent: Extent, patch: PatchBox) -> float:
    """Share of tissue in a patch, by the pixels of the tissue mask that it touches."""
    rows, columns = extent.tissue.shape
    sx, sy = columns / extent.width, rows / extent.height
    left, top = int(patch.x * sx), int(patch.y * sy)
    right = min(columns, ceil((patch.x + patch.width) * sx - 1e-9))
    bottom = min(rows, ceil((patch.y + patch.height) * sy - 1e-9))
    count = total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
    return float(count) / ((right - left) * (bottom - top))
