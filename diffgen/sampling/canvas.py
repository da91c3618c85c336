"""The canvas of one image: latents y_t, noise canvas and time-state map (Algorithm 2, §4.3).

Invariants: within a step every patch reads the same y_t; every pixel takes the estimate of its owner,
once; when the time-state map is uniform the solver takes one step on the whole canvas. Which patches are
asked for when, and in which order their estimates arrive, changes nothing.
"""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from diffgen.labels import LabelMap
from diffgen.sampling.covers import Box, Cover, CoverSchedule, rectangle, shifted
from diffgen.sampling.seeds import BLOCK, Purpose, blocks, noise
from diffgen.sampling.solvers import Solver, SolverState, as_tensor

Latents = NDArray[np.float32]
"""(C, h, w) of a patch, (C, H, W) of a canvas."""
CanvasState = tuple[dict[str, NDArray[Any]], dict[str, Any]]
"""Arrays and numbers of a canvas between two steps."""

MANY_PIXELS = 2**19
"""From which on pieces are stepped side by side: canvases of 1024 × 512 latent pixels, for one."""
THREADS = 4
"""A part of a step's time is in Python, one thread at a time: more would bring nothing."""
PIECE_BYTES = 2**20
"""Of latents that the solver steps at once: more leave the cache, of fewer most of the time is in Python."""


@dataclass(frozen=True)
class GlobalCondition:
    """What the image model is conditioned on beside the label map, the same for a whole image."""

    context: int = 0
    """Counted from 1; 0 is ∅."""
    appearance: NDArray[np.float32] | None = None
    """Standardised (A,), as `diffgen.appearance` has it; None is ∅."""


@dataclass(frozen=True)
class Patch:
    """What a sampler needs to estimate the noise of one patch."""

    latents: Latents
    """(C, h, w): the crop z_t = proj_I(y_t), scaled as the network wants it."""
    timestep: int
    labels: LabelMap
    """(h, w): the crop of M at the latent grid."""
    owned: NDArray[np.bool_]
    """(h, w): the pixels that take something from this patch."""
    whole: GlobalCondition | None = None
    """Of its image; None where the network knows none."""
    log_snr: float = 0.0
    """Of the step."""


class NonFiniteError(ValueError):
    """A NaN or an infinity in an estimate; names step and patch (promise 10)."""


class Canvas:
    """One image (or mask) on its way from noise to latents."""

    first = 0
    """The step that its streams of noise begin at."""

    def __init__(
        self,
        channels: int,
        label_map: LabelMap,
        covers: CoverSchedule,
        solver: Solver,
        purposes: tuple[Purpose, Purpose],
        whole: GlobalCondition | None = None,
    ) -> None:
        """A canvas of noise y_T under a label map (H, W).

        `purposes` name the streams of y_T and of the solver's own noise.
        """
        height, width = label_map.shape
        assert (height, width) == covers.shape, "covers fit the label map"
        assert min(height, width) >= covers.base, "a canvas is at least one patch wide"
        self.label_map, self.covers, self.solver, self.purposes = (
            label_map,
            covers,
            solver,
            purposes,
        )
        self.whole = whole
        side = BLOCK
        while 4 * channels * (2 * side) ** 2 <= PIECE_BYTES:
            side *= 2
        self.pieces = blocks(height, width, covers.origin, side)
        """What the solver steps at once, in the canvas, of which this may be a window."""
        self.latents: Latents = self._start_noise(channels)
        self.latents *= np.float32(solver.start_scale)
        self.noise: Latents = np.zeros_like(self.latents)
        self.histories: list[SolverState] = [{} for _ in self.pieces]
        self.step = 0
        self.time_state = np.full((height, width), self.steps, dtype=np.int16)  # L_T ≡ T
        self._begin_step()

    def _start_noise(self, channels: int) -> Latents:
        """y_T (C, H, W), of unit variance."""
        (y, x), (height, width) = self.covers.origin, self.covers.shape
        return self._noise(
            self.purposes[0], self.first, channels, (slice(y, y + height), slice(x, x + width))
        )

    def _noise(self, purpose: Purpose, step: int, channels: int, box: Box) -> Latents:
        """Normal noise (C, h, w) of a box of the canvas."""
        rows, columns = box
        origin, shape = (rows.start, columns.start), (rows.stop - rows.start, columns.stop - columns.start)
        drawn = np.empty((channels, *shape), dtype=np.float32)
        for block in blocks(*shape, origin):
            drawn[:, *shifted(block, origin)] = noise(self.covers.key, purpose, step, channels, block)
        return drawn

    @property
    def steps(self) -> int:
        return len(self.solver.timesteps)

    @property
    def finished(self) -> bool:
        return self.step == self.steps

    @property
    def log_snr(self) -> float:
        """Of this step."""
        return float(self.covers.log_snr[self.step])

    @property
    def full(self) -> bool:
        """Whether every pixel has its estimate, that is: the time-state map is uniform."""
        return self.missing == 0

    def _begin_step(self) -> None:
        self.cover: Cover = self.covers.at(self.step)
        self.missing = len(self.cover)

    def patch_of(self, number: int) -> Patch:
        """Patch `number` of this step's cover (Alg. 2, lines 4–5); of arrays that are the canvas's own."""
        box, scale = self.cover.box(number), self.solver.input_scale(self.step)
        latents = self.latents[:, box[0], box[1]]
        return Patch(
            latents if scale == 1 else latents * np.float32(scale),
            self.solver.timesteps[self.step],
            self.label_map[box],
            self.cover.owned(number),
            self.whole,
            self.log_snr,
        )

    def write(self, number: int, estimate: NDArray[np.float32]) -> None:
        """Estimates (C, owned pixels) of patch `number` → noise canvas and L (Alg. 2, lines 10–16).

        Raises `NonFiniteError`.
        """
        if not np.isfinite(estimate).all():
            raise NonFiniteError(
                f"step {self.step + 1} of {self.steps}, patch {number}: not a finite estimate"
            )
        self._place(number, estimate)
        self.missing -= 1

    def _place(self, number: int, estimate: NDArray[np.float32]) -> None:
        """Owned pixels take the estimate; L goes from t + 1 to t there."""
        (rows, columns), owned = self.cover.box(number), self.cover.owned(number)
        noise, state = self.noise[:, rows, columns], self.time_state[rows, columns]
        (y, x), whole = rectangle(owned)
        if whole:  # slices are several times faster than a choice of pixels
            noise, state = noise[:, y, x], state[y, x]
            estimate = estimate.reshape(noise.shape)
        where = slice(None) if whole else owned
        reached = self.steps - self.step  # t + 1: pixels of this step that still wait
        assert (state[where] == reached).all(), "a pixel is written once per step"
        noise[:, where] = estimate
        state[where] = reached - 1

    def advance(self) -> None:
        """One solver step on every piece, y_t → y_(t−1) (eqs. 3, 5), and the next step's cover.

        Raises `NonFiniteError`.
        """
        assert self.full, "a step ends when every pixel has its estimate"
        if self.label_map.size < MANY_PIXELS:
            for number in range(len(self.pieces)):
                self._step_piece(number)
        else:  # the solver's arithmetic is outside of Python's lock
            with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
                deque(pool.map(self._step_piece, range(len(self.pieces))), maxlen=0)
        if not np.isfinite(self.latents).all():
            raise NonFiniteError(
                f"step {self.step + 1} of {self.steps}: the solver gave a value that is not finite"
            )
        self.noise.fill(0)
        self.step += 1
        if self.finished:
            self.histories = []
        else:
            self._begin_step()

    def _step_piece(self, number: int) -> None:
        piece = self.pieces[number]
        rows, columns = shifted(piece, self.covers.origin)
        fresh = None
        if self.solver.draws_noise:
            step = self.first + self.step
            fresh = as_tensor(self._noise(self.purposes[1], step, self.latents.shape[0], piece))
        # An array of its own: what the solver keeps must not be the canvas that is written next.
        estimate = as_tensor(self.noise[:, rows, columns].copy())
        latents = as_tensor(self.latents[:, rows, columns].copy())
        stepped, self.histories[number] = self.solver.step(
            self.step, estimate, latents, self.histories[number], fresh
        )
        self.latents[:, rows, columns] = stepped.numpy()

    def state(self) -> CanvasState:
        """What a snapshot holds, between two steps: arrays (latents, the solver's history) and numbers."""
        assert self.missing == len(self.cover), "a snapshot is taken between two steps"
        arrays: dict[str, NDArray[Any]] = {"latents": self.latents}
        memory: list[dict[str, Any]] = []
        for piece, history in enumerate(self.histories):
            plain: dict[str, Any] = {}
            for name, value in history.items():
                items = value if isinstance(value, list) else [value]
                for k, item in enumerate(items):
                    if isinstance(item, Tensor) and item.ndim == 3:
                        arrays[f"{piece}.{name}.{k}"] = item.numpy()
                kept = [_number(item) for item in items]
                plain[name] = kept if isinstance(value, list) else kept[0]
            memory.append(plain)
        return arrays, {"step": self.step, "histories": memory}

    def restore(self, arrays: dict[str, NDArray[Any]], numbers: dict[str, Any]) -> None:
        """Resume from a snapshot of this very canvas; `ValueError` where it is in other pieces."""
        if len(numbers["histories"]) != len(self.pieces):
            raise ValueError(f"{len(numbers['histories'])} pieces instead of {len(self.pieces)}")
        self.latents[...] = arrays["latents"]
        self.histories = [dict(history) for history in numbers["histories"]]
        for key, array in arrays.items():
            if key != "latents":
                piece, name, k = key.split(".")
                history = self.histories[int(piece)]
                if isinstance(history[name], list):
                    history[name][int(k)] = as_tensor(array)
                else:
                    history[name] = as_tensor(array)
        self.step = numbers["step"]
        self.time_state.fill(self.steps - self.step)
        self._begin_step()


def _number(item: Any) -> Any:
    """What of a solver's history is no array: a count, a time step, or nothing."""
    if isinstance(item, Tensor):
        return None if item.ndim == 3 else item.item()
    return item
