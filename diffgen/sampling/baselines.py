"""Other methods to compare with: their covers, and canvases that use them. Nothing of ours depends on them.

MultiDiffusion and DiffCollage: patches have weights, and a pixel takes the sum over its patches divided by
the sum of their weights, whatever the order of arrival.

Sliding-window outpainting: a window of one base patch is denoised through all of its steps with the pixels
of earlier windows fixed, is pasted onto the canvas, and the next one begins: steps grow with the canvas.
Windows overlap by `CoverRule.noisy_overlap`; wide patches, where the bundle has them, are not used.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise, product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffgen.labels import LabelMap
from diffgen.sampling.canvas import Canvas, CanvasState, GlobalCondition, Latents, NonFiniteError, Patch
from diffgen.sampling.covers import NOISY, Cover, CoverRule, CoverSchedule, grid, grid_boxes
from diffgen.sampling.seeds import Purpose
from diffgen.sampling.solvers import Solver


@dataclass(frozen=True)
class WeightedCover(Cover):
    """Patches with weights: all of a patch's pixels take something from it."""

    weights: NDArray[np.float32] = field(kw_only=True)
    """(m,): weight of a patch in all of its pixels."""

    def owned(self, patch: int) -> NDArray[np.bool_]:
        return np.ones(self.shape(patch), dtype=np.bool_)

    def share(self, patch: int) -> NDArray[np.float32]:
        """(h, w): what a patch's estimate counts in each of its pixels; 1 in all is the sum over patches."""
        return (self.weights[patch] / self.total[self.box(patch)]).astype(np.float32)

    @cached_property
    def total(self) -> NDArray[np.float32]:
        """(H, W): sum of the weights a pixel."""
        return self.sum(self.weights)

    def sum(self, values: NDArray[Any]) -> NDArray[Any]:
        """(H, W): sum of the values (m,) of the patches that hold a pixel."""
        total = np.zeros(self.boxes[:, 2:].max(axis=0), dtype=values.dtype)
        for number, value in enumerate(values):
            total[self.box(number)] += value
        return total


def multidiffusion(height: int, width: int, patch: int, overlap: float = 0.125) -> WeightedCover:
    """MultiDiffusion (Bar-Tal et al., 2023, eq. 5): a fixed grid with overlap, the mean over the patches."""
    stride = max(1, int(patch * (1 - overlap)))
    boxes = grid_boxes(grid(height, patch, stride), grid(width, patch, stride), patch)
    return WeightedCover(boxes, weights=np.ones(len(boxes), dtype=np.float32))


def diffcollage(height: int, width: int, patch: int) -> WeightedCover:
    """DiffCollage (Zhang et al., 2023, eq. 5): the sum over patches less the sum over their overlaps.

    In two directions the product of two chains of patches (+1) and overlaps (−1), so that an overlap
    of overlaps counts +1 again. Patches overlap by half; sides are multiples of that.
    """
    assert height % (patch // 2) == width % (patch // 2) == 0, "half patches fit the canvas"
    pieces = list(product(_chain(height, patch), _chain(width, patch)))
    boxes = [(y0, x0, y1, x1) for (y0, y1, _), (x0, x1, _) in pieces]
    weights = [down * across for (_, _, down), (_, _, across) in pieces]
    return WeightedCover(np.array(boxes, dtype=np.int32), weights=np.array(weights, dtype=np.float32))


def outpaint(height: int, width: int, patch: int, overlap: float = 0.375) -> Cover:
    """A fixed grid with overlap, row by row; a pixel belongs to the first patch that holds it.

    `Outpainting` finishes these patches one after the other.
    """
    stride = max(1, int(patch * (1 - overlap)))
    ys, xs = grid(height, patch, stride), grid(width, patch, stride)
    rows = np.searchsorted(ys, np.arange(height) - patch, side="right")
    columns = np.searchsorted(xs, np.arange(width) - patch, side="right")
    owner = rows[:, None] * len(xs) + columns[None, :]
    return Cover(grid_boxes(ys, xs, patch), owner.astype(np.int32))


def _chain(length: int, patch: int) -> list[tuple[int, int, int]]:
    """Patches at half steps along one axis, and the overlaps of neighbours: (start, end, ±1)."""
    spans = [(start, start + patch) for start in range(0, length - patch + 1, patch // 2)]
    overlaps = [(right[0], left[1], -1) for left, right in pairwise(spans)]
    return [*((a, b, 1) for a, b in spans), *overlaps]


class BaselineRule(CoverRule):
    """The rules of this file, as the settings name them."""

    def __call__(
        self, height: int, width: int, patch: int, log_snr: float, rng: np.random.Generator
    ) -> Cover:
        del rng  # none of them is random
        if self.name == "multidiffusion":
            overlap = self.noisy_overlap if log_snr < NOISY else self.overlap
            return multidiffusion(height, width, patch, overlap)
        if self.name == "diffcollage":
            return diffcollage(height, width, patch)
        assert self.name == "outpaint", self.name
        return outpaint(height, width, patch, self.noisy_overlap)


class WeightedCanvas(Canvas):
    """A canvas whose pixels take a sum over patches, added in patch order."""

    def _begin_step(self) -> None:
        super()._begin_step()
        assert isinstance(self.cover, WeightedCover)
        self.next_sum = 0  # patches before this one are summed
        self.pending: dict[int, Latents] = {}  # those that came before their turn
        self.remaining = self.cover.sum(np.ones(len(self.cover), np.int32))  # patches that a pixel waits for

    def _place(self, number: int, estimate: Latents) -> None:
        assert number >= self.next_sum, "a patch is written once per step"
        assert number not in self.pending, "a patch is written once per step"
        self.pending[number] = estimate
        while self.next_sum in self.pending:
            self._add(self.next_sum, self.pending.pop(self.next_sum))
            self.next_sum += 1

    def _add(self, number: int, estimate: Latents) -> None:
        """A patch's share of its pixels; L goes to t where it was the last that a pixel waited for."""
        assert isinstance(self.cover, WeightedCover)
        box, share = self.cover.box(number), self.cover.share(number)
        self.noise[:, box[0], box[1]] += estimate.reshape(-1, *share.shape) * share
        self.remaining[box] -= 1
        self.time_state[box][self.remaining[box] == 0] = self.steps - self.step - 1


class FixedCanvas(Canvas):
    """A canvas of which some pixels are known before sampling begins.

    Replacement conditioning (Song et al., 2021, Appendix I.2; RePaint, Lugmayr et al., 2022, eq. 8a, without
    its resampling): in every step the known pixels of y_t are γ_t z_0 + σ_t ε, after the last one z_0.

    ε is that of y_T in all steps. Drawn anew each step, as RePaint does, it took 6 % off the seam and 2 % off
    the variance (0.93, where 1 is right; benchmarks/gaussian_field.py): not worth a stream of its own. It may
    not be the noise that z_0 came from: y_t would have too much of both.
    """

    def __init__(self, known: Latents, mask: NDArray[np.bool_], first: int, *canvas: Any) -> None:
        """`known` (C, H, W): z_0 where `mask` (H, W) is set; noise begins at step `first`."""
        self.known, self.mask, self.first = known, mask, first
        super().__init__(*canvas)

    def _start_noise(self, channels: int) -> Latents:
        noise = super()._start_noise(channels)
        self.known_noise = noise[:, self.mask]
        return noise

    def _begin_step(self) -> None:
        clean = self.known[:, self.mask]
        self.latents[:, self.mask] = self.solver.noised(self.step, clean, self.known_noise)
        super()._begin_step()

    def advance(self) -> None:
        super().advance()
        if self.finished:
            self.latents[:, self.mask] = self.known[:, self.mask]


class WindowSchedule(CoverSchedule):
    """The covers of outpainting: in each step one window, which owns the pixels that it adds."""

    @cached_property
    def windows(self) -> Cover:
        """The windows in their order."""
        return super().at(0)

    @property
    def steps(self) -> int:
        return len(self.windows) * len(self.log_snr)

    def side(self, step: int) -> int:
        del step
        return self.base

    def at(self, step: int) -> Cover:
        number, windows = step // len(self.log_snr), self.windows
        assert windows.owner is not None
        return Cover(windows.boxes[[number]], np.where(windows.owner == number, 0, -1).astype(np.int32))


class Outpainting(Canvas):
    """A canvas that is empty at first and filled window by window, each a canvas of its own."""

    covers: WindowSchedule

    def __init__(
        self,
        channels: int,
        label_map: LabelMap,
        covers: WindowSchedule,
        solver: Solver,
        purposes: tuple[Purpose, Purpose],
        whole: GlobalCondition | None = None,
    ) -> None:
        self.label_map, self.covers, self.solver = label_map, covers, solver
        self.purposes, self.whole = purposes, whole
        self.latents: Latents = np.zeros((channels, *label_map.shape), dtype=np.float32)
        self.step = 0
        self._open()

    @property
    def steps(self) -> int:
        return self.covers.steps

    @property
    def log_snr(self) -> float:
        """Of the window's step."""
        return self.window.log_snr

    def _open(self) -> None:
        """The window of this step, at its beginning."""
        covers, first = self.covers, self.step - self.step % len(self.covers.log_snr)
        self.cover = covers.at(first)
        rows, columns = self.box = self.cover.box(0)
        side, noise = covers.base, covers.log_snr
        alone = CoverSchedule(side, side, covers.sides, noise, covers.rule, covers.key, covers.purpose)
        self.window = FixedCanvas(
            self.latents[:, rows, columns], ~self.cover.owned(0), first, len(self.latents),
            self.label_map[self.box], alone, self.solver, self.purposes, self.whole,
        )  # fmt: skip

    def patch_of(self, number: int) -> Patch:
        """The window; only the pixels that it adds are to be estimated."""
        return replace(self.window.patch_of(number), owned=self.cover.owned(number))

    def write(self, number: int, estimate: NDArray[np.float32]) -> None:
        """Estimates (C, owned pixels) of the window. Raises `NonFiniteError`."""
        owned = self.cover.owned(number)
        whole = np.zeros((len(estimate), *owned.shape), dtype=np.float32)
        whole[:, owned] = estimate
        with self._named():
            self.window.write(number, whole.reshape(len(estimate), -1))

    def advance(self) -> None:
        """One solver step of the window; after its last it is pasted, and the next one begins.

        Raises `NonFiniteError`.
        """
        with self._named():
            self.window.advance()
        self.step += 1
        if self.window.finished:
            rows, columns = self.box
            self.latents[:, rows, columns] = self.window.latents
            if not self.finished:
                self._open()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """An error says which window it is of."""
        try:
            yield
        except NonFiniteError as error:
            number, count = self.step // self.window.steps + 1, len(self.covers.windows)
            raise NonFiniteError(f"window {number} of {count}, {error}") from error

    def state(self) -> CanvasState:
        """What a snapshot holds, between two steps: what is finished, and the window's own."""
        arrays, numbers = self.window.state()
        arrays = {f"window.{name}": array for name, array in arrays.items()}
        return arrays | {"latents": self.latents}, {"step": self.step, "window": numbers}

    def restore(self, arrays: dict[str, NDArray[Any]], numbers: dict[str, Any]) -> None:
        """Resume from a snapshot of this very canvas."""
        self.latents[...] = arrays["latents"]
        self.step = numbers["step"]
        self._open()
        own = {name.removeprefix("window."): arrays[name] for name in arrays if name != "latents"}
        self.window.restore(own, numbers["window"])


class Method(NamedTuple):
    """What one way to cover a canvas is made of."""

    rule: type[CoverRule]
    schedule: type[CoverSchedule]
    canvas: type[Canvas]


BASELINES = {
    "multidiffusion": Method(BaselineRule, CoverSchedule, WeightedCanvas),
    "diffcollage": Method(BaselineRule, CoverSchedule, WeightedCanvas),
    "outpaint": Method(BaselineRule, WindowSchedule, Outpainting),
}


def method(name: str) -> Method:
    """What a rule of the settings (`sampling.cover`) is made of, a baseline's or ours."""
    return BASELINES.get(name, Method(CoverRule, CoverSchedule, Canvas))
