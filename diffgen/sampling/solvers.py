"""Solvers: diffusers' schedulers, each handed the time steps that it wants.

A scheduler acts on the latent canvas pixel by pixel, its history included, so random patch diffusion
needs no solver of its own (design, "the noise canvas"), and a canvas may be stepped block by block.
"""

from collections.abc import Mapping
from copy import copy
from typing import Any, Literal, get_args

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from numpy.typing import NDArray
from torch import Tensor

from diffgen.errors import UserError

SolverName = Literal["dpmsolver++", "sde-dpmsolver++", "unipc", "euler", "ddim"]
Spacing = Literal["log-snr", "time"]
LARGEST_ETA = 1 - 1e-6
"""At an η of 1 DDIM takes the root of a difference of equals, which on some CPUs rounds to below zero."""
LOG_SNR_RANGE = (-9.0, 9.0)  # wider spends steps where nothing happens, narrower loses variance

# What a scheduler remembers from step to step; a canvas keeps it, a block at a time.
STATE: dict[str, tuple[str, ...]] = {
    "dpmsolver++": ("model_outputs", "lower_order_nums", "_step_index"),
    "unipc": (
        "model_outputs", "timestep_list", "lower_order_nums", "last_sample", "this_order", "_step_index",
    ),
    "euler": ("_step_index",),
    "ddim": (),
}  # fmt: skip
STATE["sde-dpmsolver++"] = STATE["dpmsolver++"]

SolverState = dict[str, Any]
"""A scheduler's memory of one block: tensors (C, h, w), numbers, or lists of both; empty at the start."""


class Solver:
    """One image's solver: `timesteps` from noisy to clean, and `step` on any piece of the canvas.

    Raises `UserError` for a number of steps that the schedule or the solver does not take.
    """

    def __init__(
        self,
        name: str,
        noise_schedule: Mapping[str, Any],
        steps: int,
        eta: float = 0.0,
        spacing: Spacing = "log-snr",
    ) -> None:
        self.name, self.eta = name, eta
        if noise_schedule.get("thresholding"):
            raise UserError(
                "the bundle's scheduler asks for dynamic thresholding: a quantile of the whole image, "
                "which patches cannot know"
            )
        schedule = {**noise_schedule, "clip_sample": False}  # latents are not in ±1
        trained = int(schedule["num_train_timesteps"])
        if steps > trained:
            raise UserError(f"{steps} sampling steps are more than the {trained} trained")
        self.scheduler = _scheduler(name, schedule)
        alphas = self.scheduler.alphas_cumprod.numpy()
        terminal = bool(schedule.get("rescale_betas_zero_snr"))
        chosen = even_log_snr(alphas, steps, terminal) if spacing == "log-snr" else even_time(trained, steps)
        if name == "ddim":  # computes each previous step itself, so a list of ours would make it wrong
            if trained % steps:  # it steps by the quotient rounded down, silently
                raise UserError(f"sampling.solver=ddim: {steps} steps do not divide the schedule's {trained}")
            self.scheduler.set_timesteps(steps)
        elif name == "unipc":  # knows no list of time steps: it goes by this table of σ/γ
            self.scheduler.set_timesteps(steps)
            self.scheduler.timesteps = torch.tensor(chosen)
            sigmas = [*np.sqrt((1 - alphas[chosen].astype(np.float64)) / alphas[chosen]), 0.0]
            self.scheduler.sigmas = torch.tensor(sigmas, dtype=torch.float32)
        else:
            self.scheduler.set_timesteps(timesteps=chosen)
        if name != "ddim":
            self.scheduler.set_begin_index(0)
        self.timesteps = [int(t) for t in self.scheduler.timesteps]
        self.log_snr = [float(value) for value in log_snr(alphas)[self.timesteps]]
        self._fresh = {attribute: getattr(self.scheduler, attribute) for attribute in STATE[name] if
                       hasattr(self.scheduler, attribute)}  # fmt: skip

    @property
    def draws_noise(self) -> bool:
        return self.name == "sde-dpmsolver++" or (self.name == "ddim" and self.eta > 0)

    @property
    def start_scale(self) -> float:
        """What normal noise is multiplied with to be y_T: Euler works on y/γ."""
        return float(self.scheduler.init_noise_sigma)

    def input_scale(self, k: int) -> float:
        """What y is multiplied with for the network to see it in step k (again Euler only)."""
        if self.name != "euler":
            return 1.0
        return float((self.scheduler.sigmas[k] ** 2 + 1) ** -0.5)

    def noised(self, k: int, clean: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.float32]:
        """γ_t z_0 + σ_t ε of step k, scaled as the solver holds y_t."""
        alpha = float(self.scheduler.alphas_cumprod[self.timesteps[k]])
        gamma, sigma, scale = alpha**0.5, (1 - alpha) ** 0.5, self.input_scale(k)
        return clean * np.float32(gamma / scale) + noise * np.float32(sigma / scale)

    def step(
        self, k: int, estimate: Tensor, latents: Tensor, history: SolverState, noise: Tensor | None = None
    ) -> tuple[Tensor, SolverState]:
        """Step k of a piece (C, h, w): y_t, the model's estimate of it and its history → y_(t−1), history.

        `noise` where `draws_noise`. The history given is not touched; pieces may be stepped side by side.
        """
        scheduler = copy(self.scheduler)  # its history is the piece's
        for name, value in (history or self._fresh).items():
            setattr(scheduler, name, list(value) if isinstance(value, list) else value)
        extra: dict[str, Any] = {}
        if self.name == "ddim":
            extra["eta"] = min(self.eta, LARGEST_ETA)
        if noise is not None:
            extra["variance_noise"] = noise
        scheduler.is_scale_input_called = True  # by `input_scale`
        stepped = scheduler.step(estimate, scheduler.timesteps[k], latents, **extra).prev_sample
        after = {name: getattr(scheduler, name) for name in STATE[self.name]}
        if "dpmsolver++" in self.name:
            after["model_outputs"] = [None, *after["model_outputs"][1:]]  # the oldest is not read again
        return stepped, after


def _scheduler(name: str, schedule: Mapping[str, Any]) -> Any:
    if name == "ddim":
        return DDIMScheduler.from_config(schedule, timestep_spacing="trailing", set_alpha_to_one=True)
    if name == "euler":
        return EulerDiscreteScheduler.from_config(schedule, final_sigmas_type="zero")
    if name == "unipc":
        return UniPCMultistepScheduler.from_config(schedule, solver_order=2, final_sigmas_type="zero")
    assert name in get_args(SolverName), name
    return DPMSolverMultistepScheduler.from_config(
        schedule, algorithm_type=name, solver_order=2, final_sigmas_type="zero"
    )


def noise_schedule(
    steps: int, schedule: str, prediction: str, zero_terminal_snr: bool = False
) -> DDPMScheduler:
    """The forward process of a bundle, z_t = γ_t z_0 + σ_t ε (Alg. 1, line 4).

    With `zero_terminal_snr` it ends in pure noise (Lin et al., 2024, Alg. 1).
    """
    return DDPMScheduler(
        num_train_timesteps=steps,
        beta_schedule=schedule,
        prediction_type=prediction,
        clip_sample=False,
        rescale_betas_zero_snr=zero_terminal_snr,
    )


def log_snr(alphas_cumprod: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """log(γ_t² / σ_t²) per time step; −∞ at pure noise."""
    alphas = np.asarray(alphas_cumprod, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.log(alphas) - np.log1p(-alphas)


def even_log_snr(
    alphas_cumprod: NDArray[np.floating[Any]], steps: int, zero_terminal_snr: bool = False
) -> list[int]:
    """The time steps nearest to an even grid of log-SNR on [−9, 9], from noisy to clean.

    The spacing matters more than the number of steps. Where the schedule does not reach so far,
    the grid ends where it ends; where it is coarser than the grid, neighbouring steps are taken.
    With `zero_terminal_snr` the first is the schedule's last: pure noise, which is what sampling starts from.
    """
    values = log_snr(alphas_cumprod)
    low, high = max(LOG_SNR_RANGE[0], values.min()), min(LOG_SNR_RANGE[1], values.max())
    grid = np.linspace(low, high, steps)
    nearest = np.sort(np.abs(values[None, :] - grid[:, None]).argmin(axis=1))
    rank = np.arange(steps)
    distinct = np.maximum.accumulate(nearest - rank) + rank
    distinct = np.minimum(distinct, len(values) - steps + rank)
    if zero_terminal_snr:
        distinct[-1] = len(values) - 1
    return [int(t) for t in distinct[::-1]]


def even_time(trained: int, steps: int) -> list[int]:
    """Time steps evenly spread over the schedule, its noisiest among them (Lin et al., 2024: "trailing")."""
    return [int(t) for t in np.round(np.arange(trained, 0, -trained / steps))[:steps].astype(int) - 1]


def as_tensor(array: NDArray[np.float32]) -> Tensor:
    """Array → tensor; a copy where the array is read-only, as those from Ray's object store are."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
