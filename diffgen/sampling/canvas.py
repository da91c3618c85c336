"""The canvas of one image: latents y_t, noise canvas and time-state map (Algorithm 2, §4.3).

Invariants: within a step every patch reads the same y_t; each latent pixel is written once, by its
owner; when the time-state map is uniform the solver takes one step on the whole canvas. Which
patches are asked for when, and in which order their estimates arrive, changes nothing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffgen.labels import LabelMap
from diffgen.sampling.covers import Cover, Rule
from diffgen.sampling.seeds import Purpose, generator
from diffgen.sampling.solvers import Solver, as_tensor

Latents = NDArray[np.float32]
"""(C, h, w) of a patch, (C, H, W) of a canvas."""


@dataclass(frozen=True)
class Patch:
    """What a sampler needs to estimate the noise of one patch."""

    latents: Latents
    """(C, h, w): the crop z_t = proj_I(y_t)."""
    timestep: int
    labels: LabelMap
    """(h, w): the crop of M at the latent grid."""
    owned: NDArray[np.bool_]
    """(h, w): the pixels that take their estimate from this patch."""


class NonFiniteError(ValueError):
    """A NaN or an infinity in an estimate; names step and patch (promise 10)."""


class Canvas:
    """One image (or mask) on its way from noise to latents."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        label_map: LabelMap,
        patch: int,
        rule: Rule,
        solver: Solver,
        key: tuple[int, int],
        purposes: tuple[Purpose, Purpose, Purpose],
    ) -> None:
        """A canvas (C, H, W) of noise y_T under a label map (H, W).

        `key` is (seed, image index); `purposes` name the streams of y_T, of the covers and of the
        solver's own noise.
        """
        assert label_map.shape == shape[1:], "the label map lies on the latent grid"
        assert min(shape[1:]) >= patch, "a canvas is at least one patch wide"
        self.label_map, self.patch, self.rule, self.solver = label_map, patch, rule, solver
        self.key, self.purposes = key, purposes
        self.latents: Latents = generator(*key, purposes[0]).standard_normal(shape, dtype=np.float32)
        self.noise: Latents = np.zeros(shape, dtype=np.float32)
        self.step = 0
        self.time_state = np.full(shape[1:], self.steps, dtype=np.int16)  # L_T ≡ T
        self.cover = self._draw_cover()
        self.unwritten = self.label_map.size

    @property
    def steps(self) -> int:
        return len(self.solver.timesteps)

    @property
    def finished(self) -> bool:
        return self.step == self.steps

    @property
    def full(self) -> bool:
        """Whether every pixel has its estimate, that is: the time-state map is uniform."""
        return self.unwritten == 0

    def _draw_cover(self) -> Cover:
        height, width = self.label_map.shape
        return self.rule(height, width, self.patch, generator(*self.key, self.purposes[1], self.step))

    def patch_of(self, number: int) -> Patch:
        """Patch `number` of this step's cover (Alg. 2, lines 4–5)."""
        box = self.cover.box(number)
        return Patch(
            np.ascontiguousarray(self.latents[:, box[0], box[1]]),
            self.solver.timesteps[self.step],
            np.ascontiguousarray(self.label_map[box]),
            self.cover.owned(number),
        )

    def write(self, number: int, estimate: NDArray[np.float32]) -> None:
        """Estimates (C, owned pixels) of patch `number` → noise canvas and L (Alg. 2, lines 10–16).

        Raises `NonFiniteError`.
        """
        if not np.isfinite(estimate).all():
            raise NonFiniteError(
                f"step {self.step + 1} of {self.steps}, patch {number}: not a finite estimate"
            )
        box, owned = self.cover.box(number), self.cover.owned(number)
        state = self.time_state[box]
        reached = self.steps - self.step  # t + 1: pixels of this step that still wait
        assert (state[owned] == reached).all(), "a pixel is written once a step"
        self.noise[:, box[0], box[1]][:, owned] = estimate
        state[owned] = reached - 1
        self.unwritten -= int(owned.sum())

    def advance(self) -> None:
        """One solver step on the whole canvas, y_t → y_(t−1) (eqs. 3, 5), and the next step's cover."""
        assert self.full, "a step ends when every pixel has its estimate"
        fresh = None
        if self.solver.draws_noise:
            rng = generator(*self.key, self.purposes[2], self.step)
            fresh = as_tensor(rng.standard_normal(self.latents.shape, dtype=np.float32))
        timestep = self.solver.timesteps[self.step]
        stepped = self.solver.step(as_tensor(self.noise), timestep, as_tensor(self.latents), fresh)
        self.latents = stepped.numpy()
        self.noise = np.zeros_like(self.latents)  # a new one: the solver's history may be the old one itself
        if not np.isfinite(self.latents).all():
            raise NonFiniteError(
                f"step {self.step + 1} of {self.steps}: the solver gave a value that is not finite"
            )
        self.step += 1
        if not self.finished:
            self.cover = self._draw_cover()
            self.unwritten = self.label_map.size
