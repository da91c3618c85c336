"""Algorithm 1: what one step of training draws, and its loss.

Every draw of sample j in step s comes from (seed, s, j): the order of the data is the same on any
number of workers, in any micro-batches, and after a resume.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import DDPMScheduler
from numpy.typing import NDArray
from torch import Tensor

from diffgen.models.device import moved
from diffgen.sampling.seeds import Purpose, generator
from diffgen.training.meters import Meters

NORMAL = 0.3, 1.0
"""Mean and deviation of a log-normal ln(σ_t/γ_t): Karras et al. (2024) have −0.4, for data of deviation 1/2;
that of latents is 1."""


@dataclass(frozen=True)
class Batch:
    """Samples of one size."""

    clean: Tensor
    """z_0 (B, C, h, w): latents, or label bits."""
    condition: Tensor
    """Label maps at the latent grid (B, h, w), or contexts (B,); 0 is ∅."""
    timestep: Tensor
    """(B,), in 0 … T − 1."""
    noise: Tensor
    """ε (B, C, h, w)."""
    context: Tensor | None = None
    """Contexts of the image model (B,), counted from 1; 0 is ∅."""
    appearance: Tensor | None = None
    """Standardised appearances (B, A); a row of NaN is ∅."""

    def to(self, device: torch.device) -> "Batch":
        given = {name: tensor for name, tensor in vars(self).items() if tensor is not None}
        return Batch(**{name: moved(tensor, device) for name, tensor in given.items()})

    @property
    def given(self) -> tuple[Tensor, ...]:
        """What the U-Net is told: the condition and, of the image model, context and appearance."""
        return tuple(t for t in (self.condition, self.context, self.appearance) if t is not None)


class BatchSource(Protocol):
    """Where a model's batches come from."""

    def sides(self, step: int, batch: int) -> list[int]:
        """Side of each sample of the global batch of a step: cheap, and the same on all workers."""
        ...

    def batch(self, step: int, samples: Sequence[int]) -> Batch:
        """Samples with these numbers of the global batch of a step, all of one side."""
        ...


@dataclass(frozen=True)
class NoiseLevels:
    """How time steps are drawn."""

    log_snr: NDArray[np.float64]
    """(T,): log(γ_t² / σ_t²), falling."""
    normal: tuple[float, float] | None = None
    """Mean and deviation of ln(σ/γ) = −log-SNR / 2 (Karras et al., 2022); None: t ~ U{0 … T − 1}."""

    def draw(self, seed: int, step: int, sample: int) -> tuple[int, np.random.Generator]:
        """t of Alg. 1, line 3, and the stream that draws the rest of the sample."""
        rng = generator(seed, step, Purpose.TRAINING, sample)
        if self.normal is None:
            return int(rng.integers(len(self.log_snr))), rng
        wanted = -2 * rng.normal(*self.normal)
        return int(np.abs(self.log_snr - wanted).argmin()), rng


def draw_noise(shape: tuple[int, ...], rng: np.random.Generator) -> Tensor:
    """ε ~ N(0, 1) of Alg. 1, line 3."""
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def share(sides: Sequence[int], rank: int, workers: int, micro_batch: int | None) -> list[list[int]]:
    """One worker's samples of a global batch, as micro-batches of one side each.

    The widest are dealt first, so that no worker has more than one more of them than another; a patch
    twice as wide as the smallest counts as four in a micro-batch.
    """
    order = sorted(range(len(sides)), key=lambda j: -sides[j])
    mine, base = order[rank::workers], min(sides)
    pieces = []
    for side in sorted({sides[j] for j in mine}, reverse=True):
        of_side = [j for j in mine if sides[j] == side]
        size = len(of_side) if micro_batch is None else max(1, micro_batch * base**2 // side**2)
        pieces += [of_side[i : i + size] for i in range(0, len(of_side), size)]
    return pieces


@dataclass(frozen=True)
class Loss:
    """What a batch gives."""

    samples: Tensor
    """(B,): weighted squared error per sample, the mean over its pixels and channels; what is reported."""
    descended: Tensor
    """(B,): what the gradient is of: `samples`, or with a learned weight samples / exp(u) + u."""
    pixels: Tensor
    """(B, h, w): squared error per pixel without weights, the mean over channels; without a gradient."""


class Objective(Protocol):
    """What the loop descends on."""

    def __call__(self, model: Any, batch: Batch, /) -> Loss:
        """The loss of a batch; of a model in evaluation mode, that by which checkpoints are compared."""
        ...

    def measure(self, meters: Meters, loss: Loss, batch: Batch) -> None:
        """Add to the figures that are logged beside the loss."""
        ...


class DiffusionLoss:
    """‖ε − ε_θ(z_t, t, c)‖² at z_t = γ_t z_0 + σ_t ε (Alg. 1, lines 4–5), or of v or z_0 in place of ε.

    With `min_snr` γ every sample is weighted as if z_0 were predicted and its squared error weighted by
    min(SNR, γ) (Hang et al., 2023, eqs. 7–8).
    """

    def __init__(
        self,
        schedule: DDPMScheduler,
        min_snr: float | None = None,
        device: torch.device | str = "cpu",
        learned: bool = False,
    ) -> None:
        """With `learned` the U-Net also says u(t), the logarithm of the loss that it expects."""
        self.schedule, self.learned = schedule, learned
        self.kind = schedule.config["prediction_type"]
        snr = schedule.alphas_cumprod.double() / (1 - schedule.alphas_cumprod.double())
        of_clean = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}[self.kind]
        weight = torch.ones_like(snr) if min_snr is None else snr.clamp(max=min_snr) / of_clean
        # At an SNR of 0 the limit of min(SNR, γ) / SNR.
        self.weight = torch.nan_to_num(weight, nan=1.0).float().to(device)
        self.log_snr = snr.log().float().to(device)
        """(T,): log(γ_t² / σ_t²) a time step."""

    def measure(self, meters: Meters, loss: Loss, batch: Batch) -> None:
        """By noise level and, of the image model, by label."""
        meters.add(loss.pixels, self.log_snr[batch.timestep], batch.condition)

    def __call__(self, unet: Any, batch: Batch) -> Loss:
        noisy = self.schedule.add_noise(batch.clean, batch.noise, batch.timestep)
        out = (
            unet(noisy, batch.timestep, *batch.given, with_log_loss=True)
            if self.learned
            else unet(noisy, batch.timestep, *batch.given)
        )
        predicted, expected = (out[0].float(), out[1].float()) if self.learned else (out.float(), None)
        if self.kind == "v_prediction":
            target = self.schedule.get_velocity(batch.clean, batch.noise, batch.timestep)
        else:
            target = batch.noise if self.kind == "epsilon" else batch.clean
        pixels = (predicted - target.float()).square().mean(dim=1)
        samples = pixels.mean(dim=(1, 2)) * self.weight[batch.timestep]
        descended = samples if expected is None else samples / expected.exp() + expected
        return Loss(samples, descended, pixels.detach())
