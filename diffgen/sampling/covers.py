"""Covers: the patches of one step, and what each latent pixel takes from them.

A cover is drawn from (seed, image, step) alone and never looks at the latents, so eq. (8) holds.
Either every pixel has one owner, a patch that contains it (and every patch owns a pixel), or patches
have weights, and a pixel takes the sum over its patches divided by the sum of their weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from diffgen.sampling.seeds import Purpose, generator

Box = tuple[slice, slice]
"""Where a patch lies, as an index of the last two axes of a canvas."""


@dataclass(frozen=True)
class Cover:
    """Patches as boxes (m, 4) of y0, x0, y1, x1 in latent pixels, with an owner per pixel or weights."""

    boxes: NDArray[np.int32]
    owner: NDArray[np.int32] | None = None
    """(H, W): number of the one patch a pixel takes its estimate from; the weights are then 0 and 1."""
    weights: NDArray[np.float32] | None = None
    """(m,): weight of a patch in all of its pixels."""
    first: int = 0
    """Number of the first patch in `owner`."""

    def __len__(self) -> int:
        return len(self.boxes)

    @cached_property
    def _places(self) -> list[Box]:
        return [(slice(y0, y1), slice(x0, x1)) for y0, x0, y1, x1 in self.boxes.tolist()]

    def box(self, patch: int) -> Box:
        return self._places[patch]

    def shape(self, patch: int) -> tuple[int, int]:
        rows, columns = self._places[patch]
        return rows.stop - rows.start, columns.stop - columns.start

    def owned(self, patch: int) -> NDArray[np.bool_]:
        """(h, w): the pixels of a patch that take something from it."""
        if self.owner is None:
            return np.ones(self.shape(patch), dtype=np.bool_)
        owned: NDArray[np.bool_] = self.owner[self.box(patch)] == self.first + patch
        return owned

    def single(self, patch: int) -> "Cover":
        """The cover of that patch alone, with the pixels that it owns."""
        assert self.weights is None, "patches with weights share their pixels"
        return Cover(self.boxes[patch : patch + 1], self.owner, first=self.first + patch)

    def normalized_weight(self, patch: int) -> NDArray[np.float32]:
        """(h, w): what a patch's estimate counts in each of its pixels; 1 in all is the sum over patches."""
        if self.weights is None:
            return self.owned(patch).astype(np.float32)
        return (self.weights[patch] / self.total[self.box(patch)]).astype(np.float32)

    @cached_property
    def total(self) -> NDArray[np.float32]:
        """(H, W): sum of the weights a pixel."""
        assert self.weights is not None
        y1, x1 = self.boxes[:, 2:].max(axis=0)
        total = np.zeros((y1, x1), dtype=np.float32)
        for number, weight in enumerate(self.weights):
            total[self.box(number)] += weight
        return total

    def touches(self) -> NDArray[np.int32]:
        """(H, W): from how many patches a pixel takes something."""
        y1, x1 = self.boxes[:, 2:].max(axis=0)
        touches = np.zeros((y1, x1), dtype=np.int32)
        for number in range(len(self)):
            touches[self.box(number)] += self.owned(number)
        return touches


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
    offset_y, offset_x = (int(offset) for offset in rng.integers(stride, size=2))
    return _owned(_shifted(height, patch, stride, offset_y), _shifted(width, patch, stride, offset_x),
                  height, width, patch)  # fmt: skip


def aligned(height: int, width: int, patch: int) -> Cover:
    """The plain grid without overlap, the same in every step: what tiling does, seams included."""
    return _owned(_grid(height, patch, patch), _grid(width, patch, patch), height, width, patch)


def multidiffusion(height: int, width: int, patch: int, overlap: float = 0.125) -> Cover:
    """MultiDiffusion (Bar-Tal et al., 2023, eq. 5): a fixed grid with overlap, the mean over the patches."""
    stride = max(1, int(patch * (1 - overlap)))
    boxes = _boxes(_grid(height, patch, stride), _grid(width, patch, stride), patch)
    return Cover(boxes, weights=np.ones(len(boxes), dtype=np.float32))


def diffcollage(height: int, width: int, patch: int) -> Cover:
    """DiffCollage (Zhang et al., 2023, eq. 5): the sum over patches less the sum over their overlaps.

    In two directions the product of two chains of patches (+1) and overlaps (−1), so that an overlap
    of overlaps counts +1 again. Patches overlap by half; sides are multiples of that.
    """
    assert height % (patch // 2) == width % (patch // 2) == 0, "half patches fit the canvas"
    pieces = list(product(_chain(height, patch), _chain(width, patch)))
    boxes = [(y0, x0, y1, x1) for (y0, y1, _), (x0, x1, _) in pieces]
    weights = [down * across for (_, _, down), (_, _, across) in pieces]
    return Cover(np.array(boxes, dtype=np.int32), weights=np.array(weights, dtype=np.float32))


def outpaint(height: int, width: int, patch: int, overlap: float = 0.375) -> Cover:
    """A fixed grid with overlap, row by row; a pixel belongs to the first patch that holds it.

    `diffgen.sampling.outpaint` finishes these patches one after the other.
    """
    stride = max(1, int(patch * (1 - overlap)))
    ys, xs = _grid(height, patch, stride), _grid(width, patch, stride)
    rows = np.searchsorted(ys, np.arange(height) - patch, side="right")
    columns = np.searchsorted(xs, np.arange(width) - patch, side="right")
    owner = rows[:, None] * len(xs) + columns[None, :]
    return Cover(_boxes(ys, xs, patch), owner.astype(np.int32))


def _chain(length: int, patch: int) -> list[tuple[int, int, int]]:
    """Patches at half steps along one axis, and the overlaps of neighbours: (start, end, ±1)."""
    spans = [(start, start + patch) for start in range(0, length - patch + 1, patch // 2)]
    overlaps = [(right[0], left[1], -1) for left, right in pairwise(spans)]
    return [*((a, b, 1) for a, b in spans), *overlaps]


def _shifted(length: int, patch: int, stride: int, offset: int) -> NDArray[np.intp]:
    """Starts of a shifted grid along one axis, clamped to the canvas."""
    last = length - patch
    return np.unique(np.clip(np.arange(offset - stride, last + stride, stride), 0, last))


def _grid(length: int, patch: int, stride: int) -> NDArray[np.intp]:
    """Starts of a grid along one axis; its last patch ends where the canvas ends."""
    return np.unique(np.minimum(np.arange(0, length - patch + stride, stride), length - patch))


def _boxes(ys: NDArray[np.intp], xs: NDArray[np.intp], patch: int) -> NDArray[np.int32]:
    return np.array([(y, x, y + patch, x + patch) for y in ys for x in xs], dtype=np.int32)


def _owned(ys: NDArray[np.intp], xs: NDArray[np.intp], height: int, width: int, patch: int) -> Cover:
    """Patches at the crossings of rows and columns; each pixel belongs to the nearest centre."""
    ys, rows = _nearest(height, patch, ys)
    xs, columns = _nearest(width, patch, xs)
    owner = rows[:, None] * len(xs) + columns[None, :]
    return Cover(_boxes(ys, xs, patch), owner.astype(np.int32))


def _nearest(length: int, patch: int, starts: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The starts that own a pixel along one axis, and the number of the nearest centre a pixel."""
    distance = np.abs(2 * np.arange(length)[:, None] + 1 - (2 * starts + patch)[None, :])
    used, nearest = np.unique(distance.argmin(axis=1), return_inverse=True)  # of two equally near the first
    return starts[used], nearest


def rectangle(owned: NDArray[np.bool_]) -> tuple[Box, bool]:
    """The smallest box (of a patch) that holds all pixels owned, and whether they are all of its pixels."""
    rows, columns = np.flatnonzero(owned.any(axis=1)), np.flatnonzero(owned.any(axis=0))
    box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    return box, bool(owned[box].all())


RuleName = Literal["jittered", "random", "aligned", "multidiffusion", "diffcollage", "outpaint"]
NOISY = -2.0  # log-SNR below which large structure is decided: there a patch needs to know more around it


@dataclass(frozen=True)
class CoverRule:
    """A covering rule as the settings name it."""

    name: RuleName
    overlap: float
    """Of neighbouring patches, in patch sides (jittered, multidiffusion)."""
    noisy_overlap: float
    """The same below log-SNR −2."""

    def __call__(
        self, height: int, width: int, patch: int, log_snr: float, rng: np.random.Generator
    ) -> Cover:
        overlap = self.noisy_overlap if log_snr < NOISY else self.overlap
        match self.name:
            case "random":
                return random(height, width, patch, rng)
            case "jittered":
                return jittered(height, width, patch, rng, overlap)
            case "aligned":
                return aligned(height, width, patch)
            case "multidiffusion":
                return multidiffusion(height, width, patch, overlap)
            case "diffcollage":
                return diffcollage(height, width, patch)
            case "outpaint":
                return outpaint(height, width, patch, self.noisy_overlap)


Sides = tuple[tuple[float | None, int], ...]
"""Patch sides by noise: (below this log-SNR, side), the noisiest first; the last has no bound."""


@dataclass(frozen=True)
class CoverSchedule:
    """All covers of one canvas: a function of the step, known before anything is sampled."""

    height: int
    width: int
    sides: Sides
    log_snr: tuple[float, ...]
    """Of each step, from noisy to clean."""
    rule: CoverRule
    key: tuple[int, int]
    """Seed and image index."""
    purpose: Purpose

    @property
    def base(self) -> int:
        """The patch side whose forwards are the unit of cost: that of the clean end."""
        return self.sides[-1][1]

    @property
    def steps(self) -> int:
        return len(self.log_snr)

    def side(self, step: int) -> int:
        """Patch side of a step; a canvas narrower than a wide patch takes the base patch."""
        for bound, side in self.sides:
            if bound is None or (self.log_snr[step] < bound and min(self.height, self.width) >= side):
                return side
        raise AssertionError("the last side has no bound")

    def at(self, step: int) -> Cover:
        rng = generator(*self.key, self.purpose, step)
        return self.rule(self.height, self.width, self.side(step), self.log_snr[step], rng)

    def cost(self, shape: tuple[int, int]) -> int:
        """Forwards of the base patch that one of a patch (h, w) counts as: twice the side, four times."""
        return -(-shape[0] * shape[1] // self.base**2)

    def __iter__(self) -> Iterator[Cover]:
        return (self.at(step) for step in range(self.steps))
