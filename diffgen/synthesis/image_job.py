"""The life of one image, from nothing to samples, and the work that is open in it.

    sampled:  mask canvas ─► label map (clean, onto the latent grid) ─► image canvas ─► render ─► samples
    given:    ────────────────────────────────────────────────────────► image canvas ─► render ─► samples

Invariants: no leases and no Ray; work comes in turns (the patches of a step, one label map, or the regions
to render), and the result of a piece is taken once, from whoever is first, and in its turn only. Nothing
here is as large as the picture: samplers make pixels region by region.
"""

import time
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from diffgen import label_maps
from diffgen.labels import LabelMap
from diffgen.sampling.canvas import Canvas, CanvasState, NonFiniteError, Patch
from diffgen.sampling.covers import Area, CoverSchedule, shifted
from diffgen.sampling.denoise import batch_size
from diffgen.sampling.loop import fill
from diffgen.synthesis import render
from diffgen.synthesis.manifest import Sample
from diffgen.synthesis.plan import Plan
from diffgen.synthesis.region import MaskPart, image_covers, mask_covers, mask_parts
from diffgen.synthesis.schedule import OpenPatches

Stage = Literal["mask", "label_map", "image", "render", "done"]


@dataclass(frozen=True)
class LabelMapJob:
    """A finished mask canvas (C, h, w) → label map, cleaned, and its crop for the latent grid."""

    latents: NDArray[np.float32]
    height: int
    width: int
    part: MaskPart | None = None
    """Which part of the canvas `latents` are; None: all."""


@dataclass(frozen=True)
class LabelMaps:
    """A label map at its own scale, and the image's at the latent grid."""

    label_map: LabelMap
    on_latents: LabelMap
    sure: bool = True
    """Of a part: whether all that is asked of it is as in the whole; cleaning may look further."""


Work = Patch | LabelMapJob | render.RenderJob


@dataclass(frozen=True)
class Turn:
    """Pieces of work that anyone may do, in any order."""

    stage: Stage
    rows: dict[int, int]
    """Piece → rows through the network."""
    work: Callable[[int], Work]
    """What a piece asks for."""
    take: Callable[[int, Any], None]
    """Accepts the result of a piece."""


class ImageJob:
    """One image in the making; `tiles` are the numbers of the samples asked for (all, if none are)."""

    def __init__(
        self, plan: Plan, index: int, tiles: Collection[int] = (), snapshot: CanvasState | None = None
    ) -> None:
        """At its beginning, or at a snapshot of this very image."""
        self.plan, self.index = plan, index
        self.height, self.width = plan.size_of(index)
        self.tiles = frozenset(tiles or range(plan.num_tiles(index)))
        self.context = plan.context_of(index)
        self.given: str | None = None
        self.forwards = {"mask": 0, "image": 0}
        self.canvas: Canvas | None = None
        self.label_map: render.ScaledLabelMap | None = None
        self.samples: list[Sample] = []
        self.began = self.saved = time.monotonic()
        self.regions: list[render.RenderRegion] = []
        self.turn = 0
        """Number of the turn."""
        self.current: Turn | None = None
        self._turns = self._life(snapshot)
        self._next_turn()

    def _life(self, snapshot: CanvasState | None) -> Iterator[Turn]:
        """All turns of the image; each is over when the next is asked for."""
        plan, covers = self.plan, image_covers(self.plan, self.index)
        y0, x0, y1, x1 = covers.window
        if (given := plan.given(self.index)) is not None:
            self.given = given[0]
        if snapshot is not None:
            arrays, numbers = snapshot
            self.forwards = dict(numbers["forwards"])
            origin, whole = tuple(numbers["origin"]), tuple(numbers["whole"])
            self.label_map = render.ScaledLabelMap(arrays.pop("layout"), numbers["scale"], origin, whole)
            on_latents = arrays.pop("on_latents")
        elif given is not None:
            self.label_map = render.ScaledLabelMap(given[1], 1)
            if plan.region is not None:
                top, left, bottom, right = plan.region
                self.label_map = self.label_map.piece((top, bottom), (left, right))
            on_latents = label_maps.on_grid(given[1], plan.facts.factor)[y0:y1, x0:x1]
        else:
            on_latents = yield from self._sampled_label_map(covers.window)
        yield from self._fill("image", on_latents, covers, snapshot)
        yield from self._render()

    def _fill(
        self,
        stage: Literal["mask", "image"],
        label_map: LabelMap,
        covers: CoverSchedule,
        snapshot: CanvasState | None = None,
    ) -> Iterator[Turn]:
        """Algorithm 2 on a canvas of this image, or the window of it that `covers` are of."""
        setup = self.plan.model(stage)
        whole = self.plan.whole(self.index) if stage == "image" else None
        self.canvas = canvas = setup.canvas(label_map, self.index, whole, covers)
        if snapshot is not None:
            canvas.restore(*snapshot)

        def take(patch: int, estimate: NDArray[np.float32]) -> None:
            self.forwards[stage] += rows[patch] * canvas.covers.cost(canvas.cover.shape(patch))
            canvas.write(patch, estimate)

        for rows in fill(canvas, *setup.guidance):
            yield Turn(stage, rows, canvas.patch_of, take)

    def _sampled_label_map(self, window: Area) -> Generator[Turn, None, LabelMap]:
        """The label map of the mask canvas; returns it on a window of the latent grid."""
        plan, results = self.plan, dict[int, LabelMaps]()
        for part in mask_parts(plan, self.index, window):
            covers = mask_covers(plan, self.index, part)
            yield from self._fill("mask", plan.context_map(self.index, covers.shape), covers)
            assert self.canvas is not None
            job = label_map_job(self.canvas, self.height, self.width, part)
            yield Turn("label_map", {0: 1}, {0: job}.__getitem__, results.__setitem__)
            if results[0].sure:
                break
        origin, whole = (part.asked[:2], part.whole) if part else ((0, 0), None)
        self.label_map = render.ScaledLabelMap(results[0].label_map, plan.facts.mask_pixel_px, origin, whole)
        return results[0].on_latents

    def _render(self) -> Iterator[Turn]:
        """The samples of the finished canvas, region by region."""
        plan, canvas, label_map = self.plan, self.canvas, self.label_map
        assert canvas is not None
        assert label_map is not None
        self.regions = regions = render.regions(plan, self.height, self.width, self.tiles)

        def work(number: int) -> render.RenderJob:
            whole = canvas.covers.height, canvas.covers.width
            return render.cut(plan, canvas.latents, label_map, regions[number], canvas.covers.origin, whole)

        def take(_: int, tiles: list[render.RenderedTile]) -> None:
            self.samples += [self._sample(tile) for tile in tiles]

        yield Turn("render", dict.fromkeys(range(len(regions)), 1), work, take)

    def _next_turn(self) -> None:
        self.turn += 1
        self.current = next(self._turns, None)
        self.open = {} if self.current is None else dict(self.current.rows)
        """Pieces of this turn that nobody has → rows through the network."""
        self.wanted = set(self.open)
        """Pieces of this turn that have no result yet."""
        if self.current is None:
            self.canvas = self.label_map = None

    @property
    def stage(self) -> Stage:
        return "done" if self.current is None else self.current.stage

    def next(self, number: int) -> Work:
        """An open piece of work; it is no longer open."""
        assert self.current is not None
        del self.open[number]
        return self.current.work(number)

    def put_back(self, turn: int, number: int) -> None:
        """A piece whose worker is lost is open again, unless it was done by another."""
        if turn == self.turn and number in self.wanted:
            assert self.current is not None
            self.open.setdefault(number, self.current.rows[number])

    def give(self, turn: int, number: int, result: Any) -> bool:
        """The result of a piece; false if it is no longer wanted. Raises `NonFiniteError`."""
        if turn != self.turn or number not in self.wanted:
            return False
        assert self.current is not None
        self.wanted.remove(number)
        self.open.pop(number, None)  # given up for lost, and here all the same
        if isinstance(result, NonFiniteError):
            raise result
        self.current.take(number, result)
        if not self.wanted:
            self._next_turn()
        return True

    def open_patches(self) -> list[OpenPatches]:
        """The open patches of this step of the mask or image model, by their shapes."""
        canvas, stage = self.canvas, self.stage
        assert canvas is not None
        assert stage in {"mask", "image"}
        if not self.open:
            return []
        setup = self.plan.model(stage)
        alike = dict.fromkeys(canvas.cover.shapes, self.open)
        if len(alike) > 1:
            alike = {shape: {} for shape in alike}
            for number, rows in self.open.items():
                alike[canvas.cover.shape(number)][number] = rows
        base, networks = setup.base, 2 if setup.guidance[0].at(canvas.log_snr).by_network else 1
        full = {shape: networks * batch_size(self.plan.sampling.batch, base, shape) for shape in alike}
        return [
            OpenPatches(self.index, stage, shape, rows, base, full[shape], self.fraction)
            for shape, rows in alike.items()
            if rows
        ]

    @property
    def fraction(self) -> float:
        """How much of the image is done, by steps."""
        before, after = 0 if self.given else self.plan.sampling.mask_steps, self.plan.steps
        done = 0.0 if self.canvas is None else self.canvas.step / self.canvas.steps
        reached = {"mask": done * before, "label_map": before, "image": before + done * after}
        total = before + after
        return reached.get(self.stage, total) / total

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
        if plan.region is not None:
            record["region"] = plan.run["region"]
        if plan.tile is not None or plan.region is not None:  # a tile's forwards are those of the whole image
            parent = {"index": self.index, "height": self.height, "width": self.width}
            record |= {"parent": parent, "y": done.y, "x": done.x}
        return Sample(index, done.image, done.mask, record, time.monotonic() - self.began)

    def state(self) -> CanvasState:
        """Arrays and numbers of a snapshot, between two steps of the image canvas."""
        assert self.canvas is not None
        assert self.label_map is not None
        assert self.wanted == set(range(len(self.canvas.cover)))
        arrays, numbers = self.canvas.state()
        arrays |= {"layout": self.label_map.label_map, "on_latents": self.canvas.label_map}
        labelled = self.label_map
        place = {"origin": labelled.origin, "whole": labelled.whole or labelled.label_map.shape}
        return arrays, numbers | {"forwards": self.forwards, "scale": labelled.scale} | place


def label_map_job(canvas: Canvas, height: int, width: int, part: MaskPart | None) -> LabelMapJob:
    """What a sampler needs of a finished mask canvas for the label map of an image (H, W), or for a part."""
    if part is None:
        return LabelMapJob(canvas.latents, height, width)
    y0, x0, y1, x1 = part.latents
    rows, columns = shifted((slice(y0, y1), slice(x0, x1)), canvas.covers.origin)
    return LabelMapJob(np.ascontiguousarray(canvas.latents[:, rows, columns]), height, width, part)
