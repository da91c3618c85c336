"""Covers: the patches of one step, and the owner of each latent pixel.

A cover is drawn from (seed, image, step) alone and never looks at the latents, so eq. (8) holds.
Invariant: every pixel has exactly one owner, the owner contains it, and every patch owns a pixel.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Cover:
    """Patches as boxes (m, 4) of y0, x0, y1, x1 in latent pixels, and the owner's number a pixel (H, W)."""

    boxes: NDArray[np.int32]
    owner: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.boxes)

    def box(self, patch: int) -> tuple[slice, slice]:
        """Where a patch lies, as an index of the last two axes of a canvas."""
        y0, x0, y1, x1 = (int(side) for side in self.boxes[patch])
        return slice(y0, y1), slice(x0, x1)

    def owned(self, patch: int) -> NDArray[np.bool_]:
        """(h, w): the pixels of a patch that take their estimate from it."""
        owned: NDArray[np.bool_] = self.owner[self.box(patch)] == patch
        return owned


def random(height: int, width: int, patch: int, rng: np.random.Generator) -> Cover:
    """Alg. 2, lines 2–17, as released: a pixel drawn among those not yet updated centres the next patch.

    The patch is clamped to the canvas; a pixel belongs to the first patch that holds it, eq. (6).
    """
    owner = np.full((height, width), -1, dtype=np.int32)
    boxes: list[tuple[int, int, int, int]] = []
    while (left := np.flatnonzero(owner < 0)).size:
        row, column = divmod(int(rng.choice(left)), width)
        y = min(max(row - patch // 2, 0), height - patch)
        x = min(max(column - patch // 2, 0), width - patch)
        view = owner[y : y + patch, x : x + patch]
        view[view < 0] = len(boxes)
        boxes.append((y, x, y + patch, x + patch))
    return Cover(np.array(boxes, dtype=np.int32), owner)


def jittered(height: int, width: int, patch: int, rng: np.random.Generator, overlap: float = 0.125) -> Cover:
    """A grid of stride (1 − overlap)·patch, shifted by a random offset in both directions each step.

    A pixel belongs to the patch whose centre is nearest: every estimate is taken far from a
    patch's border, where it knows its surroundings on all sides.
    """
    stride = max(1, int(patch * (1 - overlap)))
    ys, rows = _axis(height, patch, stride, int(rng.integers(stride)))
    xs, columns = _axis(width, patch, stride, int(rng.integers(stride)))
    boxes = [(y, x, y + patch, x + patch) for y in ys for x in xs]
    owner = rows[:, None] * len(xs) + columns[None, :]
    return Cover(np.array(boxes, dtype=np.int32), owner.astype(np.int32))


def _axis(length: int, patch: int, stride: int, offset: int) -> tuple[list[int], NDArray[np.intp]]:
    """Starts of the patches along one axis, clamped to the canvas, and the nearest one's number a pixel."""
    last = length - patch
    starts = np.unique(np.clip(np.arange(offset - stride, last + stride, stride), 0, last))
    distance = np.abs(2 * np.arange(length)[:, None] + 1 - (2 * starts + patch)[None, :])
    nearest = distance.argmin(axis=1)  # of two equally near centres the first
    used, nearest = np.unique(nearest, return_inverse=True)
    return [int(start) for start in starts[used]], nearest


Rule = Callable[[int, int, int, np.random.Generator], Cover]


def rule(name: str, overlap: float) -> Rule:
    """The covering rule that the settings name."""
    if name == "random":
        return random
    return lambda height, width, patch, rng: jittered(height, width, patch, rng, overlap)
