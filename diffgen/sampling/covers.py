"""Covers: the patches of one step, and what each latent pixel takes from them.

A cover is drawn from (seed, image, step) alone and never looks at the latents, so eq. (8) holds.
Every pixel has one owner, a patch that contains it, and every patch owns a pixel. The covers of other
methods are in `diffgen.sampling.baselines`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from diffgen.sampling.seeds import Purpose, generator

Box = tuple[slice, slice]
"""Where a patch lies, as an index of the last two axes of a canvas."""
Area = tuple[int, int, int, int]
"""y0, x0, y1, x1 of a part of a canvas, in latent pixels."""
Boxes = NDArray[np.int32]
Owner = NDArray[np.int32]


@dataclass(frozen=True)
class Cover:
    """Patches as boxes (m, 4) of y0, x0, y1, x1 in latent pixels, with an owner per pixel."""

    boxes: NDArray[np.int32]
    owner: NDArray[np.int32] | None = None
    """(H, W): number of the one patch a pixel takes its estimate from; none where patches share pixels."""

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

    @cached_property
    def shapes(self) -> list[tuple[int, int]]:
        """The (h, w) that its patches have."""
        return list(dict.fromkeys(map(self.shape, range(len(self)))))

    def owned(self, patch: int) -> NDArray[np.bool_]:
        """(h, w): the pixels of a patch that take something from it."""
        assert self.owner is not None, "a cover that says what its patches share"
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
    return Cover(*_owned(_jittered(height, width, patch, rng, overlap), patch, (0, 0, height, width)))


def aligned(height: int, width: int, patch: int) -> Cover:
    """The plain grid without overlap, the same in every step: what tiling does, seams included."""
    return Cover(*_owned(_aligned(height, width, patch), patch, (0, 0, height, width)))


Starts = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Of a grid of patches, along both axes."""


def _jittered(height: int, width: int, patch: int, rng: np.random.Generator, overlap: float) -> Starts:
    stride = max(1, int(patch * (1 - overlap)))
    offset_y, offset_x = (int(offset) for offset in rng.integers(stride, size=2))
    return _shifted(height, patch, stride, offset_y), _shifted(width, patch, stride, offset_x)


def _aligned(height: int, width: int, patch: int) -> Starts:
    return grid(height, patch, patch), grid(width, patch, patch)


def _shifted(length: int, patch: int, stride: int, offset: int) -> NDArray[np.intp]:
    """Starts of a shifted grid along one axis, clamped to the canvas."""
    last = length - patch
    return np.unique(np.clip(np.arange(offset - stride, last + stride, stride), 0, last))


def grid(length: int, patch: int, stride: int) -> NDArray[np.intp]:
    """Starts of a grid along one axis; its last patch ends where the canvas ends."""
    return np.unique(np.minimum(np.arange(0, length - patch + stride, stride), length - patch))


def grid_boxes(ys: NDArray[np.intp], xs: NDArray[np.intp], patch: int) -> NDArray[np.int32]:
    """Patches at the crossings of rows and columns, row by row."""
    return np.array([(y, x, y + patch, x + patch) for y in ys for x in xs], dtype=np.int32)


def _owned(starts: Starts, patch: int, part: Area) -> tuple[Boxes, Owner]:
    """Patches at the crossings of rows and columns that own a pixel of a part, and the owner of each.

    A pixel belongs to the nearest centre.
    """
    y0, x0, y1, x1 = part
    ys, rows = _nearest(patch, starts[0], y0, y1)
    xs, columns = _nearest(patch, starts[1], x0, x1)
    owner = rows[:, None] * len(xs) + columns[None, :]
    return grid_boxes(ys, xs, patch), owner.astype(np.int32)


def _nearest(
    patch: int, starts: NDArray[np.intp], begin: int, end: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The starts that own a pixel of a part of one axis, and the number of the nearest centre a pixel."""
    starts = starts[(starts > begin - patch) & (starts < end)]  # a pixel's owner holds it
    distance = np.abs(2 * np.arange(begin, end)[:, None] + 1 - (2 * starts + patch)[None, :])
    used, nearest = np.unique(distance.argmin(axis=1), return_inverse=True)  # of two equally near the first
    return starts[used], nearest


def cropped(cover: Cover, part: Area) -> tuple[Boxes, Owner]:
    """Patches of a cover that own a pixel of a part, and the owner of each pixel."""
    assert cover.owner is not None, "every pixel has one owner"
    y0, x0, y1, x1 = part
    used, owner = np.unique(cover.owner[y0:y1, x0:x1], return_inverse=True)
    return cover.boxes[used], owner.reshape(y1 - y0, x1 - x0).astype(np.int32)


def shifted(box: Box, origin: tuple[int, int]) -> Box:
    """A box of a canvas as it lies in the window that begins at `origin`."""
    rows, columns = box
    (y, x), (y0, y1), (x0, x1) = origin, (rows.start, rows.stop), (columns.start, columns.stop)
    return slice(y0 - y, y1 - y), slice(x0 - x, x1 - x)


def rectangle(owned: NDArray[np.bool_]) -> tuple[Box, bool]:
    """The smallest box (of a patch) that holds all pixels owned, and whether they are all of its pixels."""
    rows, columns = np.flatnonzero(owned.any(axis=1)), np.flatnonzero(owned.any(axis=0))
    box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    return box, bool(owned[box].all())


RuleName = Literal["jittered", "random", "aligned", "multidiffusion", "diffcollage", "outpaint"]
NOISY = -2.0  # log-SNR below which large structure is decided: there a patch needs to know more around it


@dataclass(frozen=True)
class CoverRule:
    """A rule for covers as the settings name it."""

    name: RuleName
    overlap: float
    """Of neighbouring patches, in patch sides (jittered, multidiffusion)."""
    noisy_overlap: float
    """The same below log-SNR −2."""

    def __call__(
        self, height: int, width: int, patch: int, log_snr: float, rng: np.random.Generator
    ) -> Cover:
        """The cover (H, W) of a step at this log-SNR."""
        overlap = self.noisy_overlap if log_snr < NOISY else self.overlap
        match self.name:
            case "random":
                return random(height, width, patch, rng)
            case "jittered":
                return jittered(height, width, patch, rng, overlap)
            case "aligned":
                return aligned(height, width, patch)
            case _:
                raise AssertionError(f"{self.name} is a rule of `baselines`")

    def within(
        self, part: Area, height: int, width: int, patch: int, log_snr: float, rng: np.random.Generator
    ) -> tuple[Boxes, Owner]:
        """Of the same cover the patches that own a pixel of a part, and the owner of each (h, w).

        Of a grid in the memory of the part; `random` has to draw the whole to know any of it.
        """
        match self.name:
            case "jittered":
                overlap = self.noisy_overlap if log_snr < NOISY else self.overlap
                return _owned(_jittered(height, width, patch, rng, overlap), patch, part)
            case "aligned":
                return _owned(_aligned(height, width, patch), patch, part)
            case _:
                return cropped(self(height, width, patch, log_snr, rng), part)


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

    @property
    def window(self) -> Area:
        """The part of the canvas that these are covers of; the boxes of patches count from its corner."""
        return 0, 0, self.height, self.width

    @property
    def origin(self) -> tuple[int, int]:
        return self.window[:2]

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the window."""
        y0, x0, y1, x1 = self.window
        return y1 - y0, x1 - x0

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
