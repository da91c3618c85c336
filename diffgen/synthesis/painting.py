"""One image on its way from nothing to a sample: which work is open, and what its results lead to.

    sampled:  mask canvas ─► layout (clean, enlarge) ─► image canvas ─► render (decode, encode) ─► sample
    given:    ─────────────────────────────────────────► image canvas ─► render ─► sample

Pure state: no leases, no Ray. Work comes in turns (a step's patches, or one layout or render); a piece
is a turn and a number in it. Its result is taken once, from whoever is first, and in its turn only.
"""

import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from diffgen.labels import LabelMap
from diffgen.sampling import masks
from diffgen.sampling.canvas import Canvas, NonFiniteError, Patch
from diffgen.sampling.denoise import conditions
from diffgen.synthesis.plan import Model, Plan
from diffgen.synthesis.shards import Sample

Stage = Literal["mask", "layout", "image", "render", "done"]


@dataclass(frozen=True)
class Layout:
    """Bit planes of a finished mask canvas → label map of the image."""

    bits: NDArray[np.float32]
    height: int
    width: int


@dataclass(frozen=True)
class Render:
    """Latents of a finished image canvas, and its label map → both as PNG."""

    latents: NDArray[np.float32]
    label_map: LabelMap


@dataclass(frozen=True)
class Rendered:
    image: bytes
    mask: bytes
    class_shares: list[float]


Work = Patch | Layout | Render


class Painting:
    """The state of one image."""

    def __init__(self, plan: Plan, index: int) -> None:
        self.plan, self.index = plan, index
        self.context = plan.context_of(index)
        self.forwards = {"mask": 0, "image": 0}
        self.turn = 0
        self.open: deque[int] = deque()  # numbers of this turn's pieces that nobody has
        self.wanted: set[int] = set()  # numbers of this turn's pieces that have no result yet
        self.canvas: Canvas | None = None
        self.label_map: LabelMap | None = None
        self.sample: Sample | None = None
        self.began = time.monotonic()
        self.stage: Stage = "mask"
        self.given: str | None = None
        if (given := plan.given(index)) is None:
            self._begin("mask", plan.context_map(index))
        else:
            self.given, label_map = given
            self._begin_image(label_map)

    def next(self) -> tuple[int, Work]:
        """An open piece of work and its number; it is no longer open."""
        assert self.canvas is not None
        number = self.open.popleft()
        if self.stage == "layout":
            return number, Layout(self.canvas.latents, *self.plan.size)
        if self.stage == "render":
            assert self.label_map is not None
            return number, Render(self.canvas.latents, self.label_map)
        return number, self.canvas.patch_of(number)

    def put_back(self, turn: int, number: int) -> None:
        """A piece whose worker is lost is open again, unless it was done by another."""
        if turn == self.turn and number in self.wanted and number not in self.open:
            self.open.appendleft(number)

    def _offer(self, pieces: int) -> None:
        self.turn += 1
        self.open, self.wanted = deque(range(pieces)), set(range(pieces))

    @property
    def model(self) -> Model:
        return self.plan.model("mask" if self.stage == "mask" else "image")

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w) of the open patches, or of the canvas: what a lease holds is of one shape."""
        assert self.canvas is not None
        if self.stage in {"layout", "render"}:
            return self.canvas.label_map.shape
        return self.canvas.cover.shape(self.open[0])

    def give(self, turn: int, number: int, result: Any) -> bool:
        """The result of a piece; false if it is no longer wanted. Raises `NonFiniteError`."""
        if turn != self.turn or number not in self.wanted:
            return False
        self.wanted.remove(number)
        if number in self.open:  # given up for lost, and here all the same
            self.open.remove(number)
        if isinstance(result, NonFiniteError):
            raise result
        if self.stage == "layout":
            self._begin_image(result)
        elif self.stage == "render":
            self._finish(result)
        else:
            self._write(number, result)
        return True

    def _write(self, number: int, estimate: NDArray[np.float32]) -> None:
        assert self.canvas is not None
        cover, guidance = self.canvas.cover, self.model.guidance
        needed = conditions(self.canvas.labels_of(number), cover.owned(number), *guidance)
        self.forwards[self.stage] += len(needed) * self.canvas.covering.cost(cover.shape(number))
        self.canvas.write(number, estimate)
        if not self.canvas.full:
            return
        self.canvas.advance()
        if not self.canvas.finished:
            self._offer(len(self.canvas.cover))
        else:
            self.stage = "layout" if self.stage == "mask" else "render"
            self._offer(1)

    def _begin_image(self, label_map: LabelMap) -> None:
        self.label_map = label_map
        self._begin("image", masks.on_grid(label_map, self.plan.facts.factor))

    def _begin(self, stage: Literal["mask", "image"], label_map: LabelMap) -> None:
        self.stage = stage
        self.canvas = self.model.canvas(label_map, self.index)
        self._offer(len(self.canvas.cover))

    def _finish(self, rendered: Rendered) -> None:
        plan, label_map = self.plan, self.label_map
        assert label_map is not None
        record = {
            "index": self.index,
            "seed": plan.seed,
            "context": None if self.context is None else plan.labels.contexts[self.context],
            "given_label_map": self.given,
            "height": label_map.shape[0],
            "width": label_map.shape[1],
            "mpp": plan.facts.mpp,
            "forwards": sum(self.forwards.values()),
            "forwards_by_model": dict(self.forwards),
            "class_shares": [round(share, 6) for share in rendered.class_shares],
            "classes": list(plan.labels.classes),
            "run": plan.run,
        }
        seconds = time.monotonic() - self.began
        self.sample = Sample(self.index, rendered.image, rendered.mask, record, seconds)
        self.stage, self.canvas, self.label_map = "done", None, None
