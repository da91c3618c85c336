"""One image on its way from nothing to samples: which work is open, and what its results lead to.

    sampled:  mask canvas ─► layout (clean, onto the latent grid) ─► image canvas ─► render ─► samples
    given:    ─────────────────────────────────────────────────────► image canvas ─► render ─► samples

Pure state: no leases, no Ray. Work comes in turns (a step's patches, one layout, or the regions to
render); a piece is a turn and a number in it. Its result is taken once, from whoever is first, and in
its turn only. Nothing here is as large as the picture: pixels are made region by region, by samplers.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from diffgen.labels import LabelMap
from diffgen.sampling import masks
from diffgen.sampling.canvas import Canvas, NonFiniteError, Patch
from diffgen.sampling.denoise import num_forwards
from diffgen.sampling.outpaint import Outpainting
from diffgen.synthesis import render
from diffgen.synthesis.plan import ModelSetup, Plan
from diffgen.synthesis.shards import Sample

Stage = Literal["mask", "layout", "image", "render", "done"]


@dataclass(frozen=True)
class LabelMapJob:
    """A finished mask canvas (C, h, w) → label map, cleaned, and its crop for the latent grid."""

    latents: NDArray[np.float32]
    height: int
    width: int


@dataclass(frozen=True)
class LabelMaps:
    """A label map at its own scale, and the image's at the latent grid."""

    label_map: LabelMap
    on_latents: LabelMap


Work = Patch | LabelMapJob | render.RenderJob


class ImageJob:
    """The state of one image; `tiles` are the numbers of the samples asked for (all, if none are)."""

    def __init__(self, plan: Plan, index: int, tiles: Collection[int] = ()) -> None:
        self.plan, self.index = plan, index
        self.height, self.width = plan.size_of(index)
        self.tiles = frozenset(tiles or range(plan.num_tiles(index)))
        self.context = plan.context_of(index)
        self.forwards = {"mask": 0, "image": 0}
        self.turn = 0
        self.open: dict[int, int] = {}  # pieces of this turn that nobody has → rows through the network
        self.wanted: dict[int, int] = {}  # pieces of this turn that have no result yet → the same
        self.canvas: Canvas | Outpainting | None = None
        self.layout: render.ScaledLabelMap | None = None
        self.samples: list[Sample] = []
        self.began = self.saved = time.monotonic()
        self.stage: Stage = "mask"
        self.given: str | None = None
        if (given := plan.given(index)) is None:
            self._begin("mask", plan.context_map(index))
        else:
            self.given, label_map = given
            self.layout = render.ScaledLabelMap(label_map, 1)
            self._begin("image", masks.on_grid(label_map, plan.facts.factor))

    def next(self, number: int) -> Work:
        """An open piece of work; it is no longer open."""
        assert self.canvas is not None
        del self.open[number]
        if self.stage == "layout":
            return LabelMapJob(self.canvas.latents, self.height, self.width)
        if self.stage == "render":
            assert self.layout is not None
            return render.cut(self.plan, self.canvas.latents, self.layout, self.regions[number])
        return self.canvas.patch_of(number)

    def put_back(self, turn: int, number: int) -> None:
        """A piece whose worker is lost is open again, unless it was done by another."""
        if turn == self.turn and number in self.wanted:
            self.open.setdefault(number, self.wanted[number])

    def _offer(self, pieces: dict[int, int]) -> None:
        self.turn += 1
        self.open, self.wanted = dict(pieces), dict(pieces)

    @property
    def model(self) -> ModelSetup:
        return self.plan.model("mask" if self.stage == "mask" else "image")

    @property
    def networks(self) -> int:
        """U-Nets that the patches of this step go through: two where a worse one guides."""
        assert self.canvas is not None
        guidance, _ = self.model.guidance
        return 2 if guidance.at(self.canvas.log_snr).by_network else 1

    def open_by_shape(self) -> dict[tuple[int, int], dict[int, int]]:
        """The open patches by their (h, w), as those of a lease are of one shape."""
        assert self.canvas is not None
        cover = self.canvas.cover
        if cover.owner is not None:
            return {cover.shape(0): self.open} if self.open else {}
        found: dict[tuple[int, int], dict[int, int]] = {}
        for number, rows in self.open.items():
            found.setdefault(cover.shape(number), {})[number] = rows
        return found

    @property
    def fraction(self) -> float:
        """How much of the image is done, by steps."""
        before, after = 0 if self.given else self.plan.sampling.mask_steps, self.plan.steps
        done = 0.0 if self.canvas is None else self.canvas.step / self.canvas.steps
        reached = {"mask": done * before, "layout": before, "image": before + done * after}
        total = before + after
        return reached.get(self.stage, total) / total

    def give(self, turn: int, number: int, result: Any) -> bool:
        """The result of a piece; false if it is no longer wanted. Raises `NonFiniteError`."""
        if turn != self.turn or number not in self.wanted:
            return False
        rows = self.wanted.pop(number)
        self.open.pop(number, None)  # given up for lost, and here all the same
        if isinstance(result, NonFiniteError):
            raise result
        if self.stage == "layout":
            self.layout = render.ScaledLabelMap(result.label_map, self.plan.facts.mask_pixel_px)
            self._begin("image", result.on_latents)
        elif self.stage == "render":
            self.samples += [self._sample(done) for done in result]
            if not self.wanted:
                self.stage, self.canvas, self.layout = "done", None, None
        else:
            self._write(number, rows, result)
        return True

    def _write(self, number: int, rows: int, estimate: NDArray[np.float32]) -> None:
        assert self.canvas is not None
        canvas = self.canvas
        self.forwards[self.stage] += rows * canvas.covering.cost(canvas.cover.shape(number))
        canvas.write(number, estimate)
        if canvas.full:
            canvas.advance()
            self._offer_step()

    def _begin(self, stage: Literal["mask", "image"], label_map: LabelMap) -> None:
        self.stage = stage
        whole = self.plan.whole(self.index) if stage == "image" else None
        self.canvas = self.model.canvas(label_map, self.index, whole)
        self._offer_step()

    def _offer_step(self) -> None:
        """The patches of the canvas's step, or what comes after the last one."""
        canvas = self.canvas
        assert canvas is not None
        if not canvas.finished:
            guidance, conditioning = self.model.guidance
            here = guidance.at(canvas.log_snr)
            self._offer(
                {
                    number: num_forwards(
                        canvas.labels_of(number), canvas.cover.owned(number), here, conditioning
                    )
                    for number in range(len(canvas.cover))
                }
            )
        elif self.stage == "mask":
            self.stage = "layout"
            self._offer({0: 1})
        else:
            self.stage = "render"
            self.regions = render.regions(self.plan, self.height, self.width, self.tiles)
            self._offer(dict.fromkeys(range(len(self.regions)), 1))

    def _sample(self, done: render.RenderedTile) -> Sample:
        plan = self.plan
        index = plan.first_sample(self.index) + done.tile
        record = {
            "index": index,
            "seed": plan.seed,
            "context": None if self.context is None else plan.labels.contexts[self.context],
            "given_label_map": self.given,
            "height": done.height,
            "width": done.width,
            "mpp": plan.facts.mpp,
            "forwards": sum(self.forwards.values()),
            "forwards_by_model": dict(self.forwards),
            "class_shares": [round(share, 6) for share in done.class_shares],
            "classes": list(plan.labels.classes),
            "run": plan.run,
        }
        if (look := plan.appearance_of(self.index)) is not None and plan.appearance is not None:
            record |= {"appearance": plan.appearance.named(look[1]), "appearance_of": look[0]}
        if plan.tile is not None:  # forwards are those of the whole image
            parent = {"index": self.index, "height": self.height, "width": self.width}
            record |= {"parent": parent, "y": done.y, "x": done.x}
        return Sample(index, done.image, done.mask, record, time.monotonic() - self.began)

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and numbers of a snapshot, between two steps of the image canvas."""
        assert self.canvas is not None
        assert self.layout is not None
        assert self.wanted.keys() == set(range(len(self.canvas.cover)))
        arrays, numbers = self.canvas.state()
        arrays |= {"layout": self.layout.label_map, "on_latents": self.canvas.label_map}
        return arrays, numbers | {"forwards": self.forwards, "scale": self.layout.scale}

    def restore(self, arrays: dict[str, NDArray[Any]], numbers: dict[str, Any]) -> None:
        """Go on from a snapshot of this very image."""
        self.layout = render.ScaledLabelMap(arrays.pop("layout"), numbers["scale"])
        self._begin("image", arrays.pop("on_latents"))
        assert self.canvas is not None
        self.canvas.restore(arrays, numbers)
        self.forwards = dict(numbers["forwards"])
        self._offer_step()
