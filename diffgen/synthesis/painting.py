"""One image on its way from nothing to a sample: which work is open, and what its results lead to.

    sampled:  mask canvas ─► layout (clean, enlarge) ─► image canvas ─► render (decode, encode) ─► sample
    given:    ─────────────────────────────────────────► image canvas ─► render ─► sample

Pure state: no clock, no leases, no Ray. Each piece of work is asked for once until it is put back.
"""

import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from diffgen.labels import LabelMap
from diffgen.sampling import covers, masks
from diffgen.sampling.canvas import Canvas, Patch
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
        self.open: deque[int] = deque()  # numbers of the pieces of work nobody has yet
        self.cost: dict[int, int] = {}  # forwards of each patch of this step
        self.canvas: Canvas | None = None
        self.label_map: LabelMap | None = None
        self.sample: Sample | None = None
        self.began = time.monotonic()
        self.stage: Stage = "mask"
        given = plan.given(index)
        if given is None:
            self._begin_mask()
        else:
            self._begin_image(given)

    def next(self) -> tuple[int, Work]:
        """An open piece of work and its number; it is no longer open."""
        number = self.open.popleft()
        if self.stage == "layout":
            assert self.canvas is not None
            return number, Layout(self.canvas.latents, *self.plan.size)
        if self.stage == "render":
            assert self.canvas is not None
            assert self.label_map is not None
            return number, Render(self.canvas.latents, self.label_map)
        assert self.canvas is not None
        patch = self.canvas.patch_of(number)
        self.cost[number] = len(conditions(patch, *self.guidance))
        return number, patch

    def put_back(self, number: int) -> None:
        """Work whose worker is lost is open again."""
        self.open.appendleft(number)

    @property
    def guidance(self) -> tuple[float, Conditioning]:
        """ω and the conditioning of the present stage."""
        if self.stage == "mask":
            return self.plan.sampling.mask_guidance, "per_label"
        joint = self.plan.facts.conditioning == "joint"
        return self.plan.sampling.guidance, "joint" if joint else "per_label"

    def give(self, number: int, result: Any) -> None:
        """The result of a piece of work; raises `NonFiniteError`."""
        if self.stage == "layout":
            self._begin_image(result)
        elif self.stage == "render":
            self._finish(result)
        else:
            self._write(number, result)

    def _write(self, number: int, estimate: NDArray[np.float32]) -> None:
        assert self.canvas is not None
        self.canvas.write(number, estimate)
        self.forwards[self.stage] += self.cost.pop(number)
        if not self.canvas.full:
            return
        self.canvas.advance()
        if not self.canvas.finished:
            self.open = deque(range(len(self.canvas.cover)))
        else:
            self.stage = "layout" if self.stage == "mask" else "render"
            self.open = deque([0])

    def _begin_mask(self) -> None:
        facts, (height, width) = self.plan.facts, self.plan.size
        scale, least = facts.mask_pixel_px, facts.mask_patch
        shape = max(least, -(-height // scale)), max(least, -(-width // scale))
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
        self.open = deque(range(len(self.canvas.cover)))

    def _finish(self, rendered: Rendered) -> None:
        plan, label_map = self.plan, self.label_map
        assert label_map is not None
        record = {
            "index": self.index,
            "seed": plan.seed,
            "context": plan.labels.contexts[self.context],
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
