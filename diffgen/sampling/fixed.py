"""Fixed pixels: latents that are known before sampling begins, as outpainting and inpainting have them.

Replacement conditioning (Song et al., 2021, Appendix I.2; RePaint, Lugmayr et al., 2022, eq. 8a, without
its resampling): the known pixels of y_t are γ_t z_0 + σ_t ε in every step, and z_0 after the last one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffgen.sampling.solvers import Solver


@dataclass(frozen=True)
class Fixed:
    """What is known of a canvas."""

    latents: NDArray[np.float32]
    """(C, H, W): z_0; whatever, where nothing is known."""
    mask: NDArray[np.bool_]
    """(H, W): the pixels that are known."""

    def put(
        self,
        latents: NDArray[np.float32],
        block: tuple[slice, slice],
        solver: Solver,
        step: int,
        noise: NDArray[np.float32],
    ) -> None:
        """Overwrite the known pixels of a block of y_t (C, H, W) before `step`; `noise` (C, h, w) is ε."""
        rows, columns = block
        known = self.mask[block]
        clean = self.latents[:, rows, columns][:, known]
        finished = step == len(solver.timesteps)
        latents[:, rows, columns][:, known] = (
            clean if finished else solver.noised(step, clean, noise[:, known])
        )
