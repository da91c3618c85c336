"""Sliding-window outpainting: one window after the other, conditioned on what is finished.

A method to compare with: a window of one base patch is denoised through all of its steps with the pixels
of earlier windows fixed, is pasted onto the canvas, and the next one begins. So the steps of a canvas grow
with its size. Windows lie on a grid, row by row, and overlap by `Rule.noisy_overlap`; wide patches, where
the bundle has them, are not used.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffgen.labels import LabelMap
from diffgen.sampling.canvas import Canvas, GlobalCondition, Latents, NonFiniteError, Patch
from diffgen.sampling.covers import Cover, CoverSchedule
from diffgen.sampling.fixed import Fixed
from diffgen.sampling.seeds import Purpose
from diffgen.sampling.solvers import Solver


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
        return self.windows.single(step // len(self.log_snr))


class Outpainting:
    """One image (or mask) on its way from noise to latents, as a `Canvas` is."""

    def __init__(
        self,
        channels: int,
        label_map: LabelMap,
        covering: WindowSchedule,
        solver: Solver,
        purposes: tuple[Purpose, Purpose],
        whole: GlobalCondition | None = None,
    ) -> None:
        """An empty canvas under a label map (H, W), and its first window; the rest is as in `Canvas`."""
        self.label_map, self.covering, self.solver, self.purposes = label_map, covering, solver, purposes
        self.whole = whole
        self.latents: Latents = np.zeros((channels, *label_map.shape), dtype=np.float32)
        self.step = 0
        self._open()

    @property
    def steps(self) -> int:
        return self.covering.steps

    @property
    def finished(self) -> bool:
        return self.step == self.steps

    @property
    def log_snr(self) -> float:
        """Of the window's step."""
        return self.window.log_snr

    @property
    def full(self) -> bool:
        """Whether every pixel of the window has its estimate."""
        return self.window.full

    def _open(self) -> None:
        """The window of this step, at its beginning."""
        covering, first = self.covering, self.step - self.step % len(self.covering.log_snr)
        self.cover = covering.at(first)
        rows, columns = self.box = self.cover.box(0)
        side = covering.base
        alone = CoverSchedule(
            side, side, covering.sides, covering.log_snr, covering.rule, covering.key, covering.purpose
        )
        fixed = Fixed(self.latents[:, rows, columns], ~self.cover.owned(0))
        self.window = Canvas(
            len(self.latents),
            self.label_map[self.box],
            alone,
            self.solver,
            self.purposes,
            fixed,
            first,
            self.whole,
        )

    def patch_of(self, number: int) -> Patch:
        """The window; only the pixels that it adds are to be estimated."""
        return replace(self.window.patch_of(number), owned=self.cover.owned(number))

    def labels_of(self, number: int) -> LabelMap:
        """(h, w): the label map of the window."""
        return self.window.labels_of(number)

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
            number, count = self.step // self.window.steps + 1, len(self.covering.windows)
            raise NonFiniteError(f"window {number} of {count}, {error}") from error

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
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
