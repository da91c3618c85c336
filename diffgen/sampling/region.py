"""A region of a canvas by itself: its backward cone through the covers, and the canvas of no more than that.

What the region is after the last step depends on the patches that own its pixels in that step; these read
the canvas before it, in their boxes; so on to the first step. Covers, noise and owners are functions of place
and seed, so all that is computed is, bit for bit, what the whole canvas has there.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from diffgen.sampling.canvas import Canvas
from diffgen.sampling.covers import Area, Boxes, Cover, CoverSchedule, Owner
from diffgen.sampling.seeds import generator


@dataclass(frozen=True)
class RegionSchedule(CoverSchedule):
    """Of all covers of a canvas the patches that a part of it depends on.

    Covers are those of a window of the canvas: boxes count from its corner, and pixels that no later step
    needs have no owner (−1). In the whole every pixel has one: the rules of `baselines` are not for this.
    """

    part: Area
    """What is wanted after the last step."""

    @cached_property
    def needed(self) -> tuple[Area, ...]:
        """The cone: what is needed of the canvas before each step, the largest first, and at the end."""
        found = [self.part]
        for step in reversed(range(self.steps)):
            boxes, _ = self._within(step, found[-1])
            found.append(hull(boxes))
        return tuple(reversed(found))

    @property
    def window(self) -> Area:
        return self.needed[0]

    @property
    def share(self) -> float:
        """Pixels estimated, in all steps, for each one that the whole canvas takes."""
        estimated = sum((y1 - y0) * (x1 - x0) for y0, x0, y1, x1 in self.needed[1:])
        return estimated / (self.steps * self.height * self.width)

    def _within(self, step: int, part: Area) -> tuple[Boxes, Owner]:
        rng = generator(*self.key, self.purpose, step)
        return self.rule.within(part, self.height, self.width, self.side(step), self.log_snr[step], rng)

    def at(self, step: int) -> Cover:
        part, (top, left) = self.needed[step + 1], self.origin
        boxes, inside = self._within(step, part)
        y0, x0, y1, x1 = part
        owner = np.full(self.shape, -1, dtype=np.int32)
        owner[y0 - top : y1 - top, x0 - left : x1 - left] = inside
        return Cover(boxes - np.array([top, left, top, left], dtype=np.int32), owner)


def hull(boxes: Boxes) -> Area:
    """The smallest area that holds all boxes (m, 4)."""
    y0, x0 = boxes[:, :2].min(axis=0).tolist()
    y1, x1 = boxes[:, 2:].max(axis=0).tolist()
    return y0, x0, y1, x1


class RegionCanvas(Canvas):
    """The window of a canvas that a part of it depends on; after the last step only that part is of it."""

    covers: RegionSchedule

    def _begin_step(self) -> None:
        """What no patch will read is 0: a solver without an estimate might lead it anywhere."""
        (top, left), (y0, x0, y1, x1) = self.covers.origin, self.covers.needed[self.step]
        beyond = np.ones(self.covers.shape, dtype=np.bool_)
        beyond[y0 - top : y1 - top, x0 - left : x1 - left] = False
        self.latents[:, beyond] = 0
        super()._begin_step()
