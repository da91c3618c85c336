"""Solvers: diffusers' schedulers, each handed the time steps that it wants.

A scheduler acts on the whole latent canvas pixel by pixel, its history included, so random patch
diffusion needs no solver of its own (design, "the noise canvas").
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from numpy.typing import NDArray
from torch import Tensor

from diffgen.errors import UserError

LOG_SNR_RANGE = (-9.0, 9.0)  # wider spends steps where nothing happens, narrower loses variance


class Solver:
    """One image's solver: `timesteps` from noisy to clean, and `step` on the whole canvas.

    Raises `UserError` for a number of steps that the schedule or the solver does not take.
    """

    def __init__(self, name: str, noise_schedule: Mapping[str, Any], steps: int, eta: float = 0.0) -> None:
        self.name, self.eta = name, eta
        schedule = {**noise_schedule, "clip_sample": False, "thresholding": False}
        if steps > int(schedule["num_train_timesteps"]):
            raise UserError(
                f"{steps} sampling steps are more than the {schedule['num_train_timesteps']} trained"
            )
        if name == "ddim":  # computes each previous step itself, so a custom list would make it wrong
            trained = int(schedule["num_train_timesteps"])
            if trained % steps:  # it steps by the quotient rounded down, silently
                raise UserError(f"sampling.solver=ddim: {steps} steps do not divide the schedule's {trained}")
            self.scheduler: Any = DDIMScheduler.from_config(
                schedule, timestep_spacing="trailing", set_alpha_to_one=True
            )
            self.scheduler.set_timesteps(steps)
        else:
            self.scheduler = DPMSolverMultistepScheduler.from_config(
                schedule, algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero"
            )
            self.scheduler.set_timesteps(timesteps=even_log_snr(self.scheduler.alphas_cumprod.numpy(), steps))
            self.scheduler.set_begin_index(0)
        self.timesteps = [int(t) for t in self.scheduler.timesteps]

    @property
    def draws_noise(self) -> bool:
        return self.name == "ddim" and self.eta > 0

    def step(self, estimate: Tensor, timestep: int, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """y_t (C, H, W) and the model's estimate of it → y_(t−1); `noise` where `draws_noise`."""
        extra = {"eta": self.eta, "variance_noise": None if noise is None else noise[None]}
        stepped = self.scheduler.step(
            estimate[None], timestep, latents[None], **(extra if self.name == "ddim" else {})
        )
        return stepped.prev_sample[0]


def noise_schedule(steps: int, schedule: str, prediction: str) -> DDPMScheduler:
    """The forward process of a bundle, z_t = γ_t z_0 + σ_t ε (Alg. 1, line 4)."""
    return DDPMScheduler(
        num_train_timesteps=steps, beta_schedule=schedule, prediction_type=prediction, clip_sample=False
    )


def log_snr(alphas_cumprod: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """log(γ_t² / σ_t²) a time step."""
    alphas = np.asarray(alphas_cumprod, dtype=np.float64)
    return np.log(alphas) - np.log1p(-alphas)


def even_log_snr(alphas_cumprod: NDArray[np.floating[Any]], steps: int) -> list[int]:
    """The time steps nearest to an even grid of log-SNR on [−9, 9], from noisy to clean.

    The spacing matters more than the number of steps. Where the schedule does not reach so far,
    the grid ends where it ends; where it is coarser than the grid, neighbouring steps are taken.
    """
    values = log_snr(alphas_cumprod)
    low, high = max(LOG_SNR_RANGE[0], values.min()), min(LOG_SNR_RANGE[1], values.max())
    grid = np.linspace(low, high, steps)
    nearest = np.sort(np.abs(values[None, :] - grid[:, None]).argmin(axis=1))
    rank = np.arange(steps)
    distinct = np.maximum.accumulate(nearest - rank) + rank
    distinct = np.minimum(distinct, len(values) - steps + rank)
    return [int(t) for t in distinct[::-1]]


def as_tensor(array: NDArray[np.float32]) -> Tensor:
    """Array → tensor; a copy where the array is read-only, as those from Ray's object store are."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
