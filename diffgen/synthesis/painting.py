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
from diffgen.sampling import covers, masks
from diffgen.sampling.canvas import Canvas, NonFiniteError, Patch
from diffgen.sampling.denoise import Conditioning, conditions
from diffgen.sampling.seeds import Purpose
from diffgen.sampling.solvers import Solver
from diffgen.synthesis.plan import Plan
from diffgen.synthesis.shards import Sample

Stage = Literal["mask", "layout", "image", "render", "done"]
MASK_PURPOSES = (Purpose.MASK_NOISE, Purpose.MASK_COVER, Purpose.MASK_STEP_NOISE)
IMAGE_PURPOSES = (Purpose.IMAGE_NOISE, Purpose.IMAGE_COVER, Purpose.IMAGE_STEP_NOISE)


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
            self._begin_mask()
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
    def guidance(self) -> tuple[float, Conditioning]:
        """ω and the conditioning of the present stage."""
        if self.stage == "mask":
            return self.plan.sampling.mask_guidance, "per_label"
        joint = self.plan.facts.conditioning == "joint"
        return self.plan.sampling.guidance, "joint" if joint else "per_label"

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
        self.forwards[self.stage] += len(conditions(self.canvas.patch_of(number), *self.guidance))
        self.canvas.write(number, estimate)
        if not self.canvas.full:
            return
        self.canvas.advance()
        if not self.canvas.finished:
            self._offer(len(self.canvas.cover))
        else:
            self.stage = "layout" if self.stage == "mask" else "render"
            self._offer(1)

    def _begin_mask(self) -> None:
        facts, (height, width) = self.plan.facts, self.plan.size
        scale, least = facts.mask_pixel_px, facts.mask_patch
        shape = max(least, -(-height // scale)), max(least, -(-width // scale))
        assert self.context is not None
        context = np.full(shape, self.context + 1, dtype=np.uint8)  # 0 is the null context
        bits = masks.num_bits(len(self.plan.labels))
        self._begin("mask", context, bits, facts.mask_patch, self.plan.sampling.mask_steps)

    def _begin_image(self, label_map: LabelMap) -> None:
        facts = self.plan.facts
        self.label_map = label_map
        on_latents = masks.on_grid(label_map, facts.factor)
        self._begin("image", on_latents, facts.image_channels, facts.image_patch, self.plan.sampling.steps)

    def _begin(
        self, stage: Literal["mask", "image"], label_map: LabelMap, channels: int, patch: int, steps: int
    ) -> None:
        sampling = self.plan.sampling
        solver = Solver(sampling.solver, self.plan.schedule, steps, sampling.eta)
        rule = covers.rule(sampling.cover, sampling.overlap)
        shape = (channels, *label_map.shape)
        purposes = MASK_PURPOSES if stage == "mask" else IMAGE_PURPOSES
        self.stage = stage
        self.canvas = Canvas(shape, label_map, patch, rule, solver, (self.plan.seed, self.index), purposes)
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
