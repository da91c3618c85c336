"""Fine-tuning by Direct Discriminative Optimization (Zheng et al., ICML 2025, arXiv:2503.01103).

A model of limited size that is trained by likelihood hedges its bets, and what it draws is blurred. Here it
learns instead to tell real samples from those that it drew itself: the ratio of its own likelihood to that of
a frozen reference is a discriminator, so there is no second network, and no sampling costs more after it.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from diffgen.sampling.solvers import Solver, SolverState
from diffgen.training.algorithm import Batch, DiffusionLoss, Loss
from diffgen.training.meters import Meters


class DiscriminativeLoss:
    """−log σ(β·Δ(z_0)) − log σ(−β·Δ(z̃_0)), Δ = ℓ_ref − ℓ_θ.

    z_0 is real; z̃_0 is drawn by the reference under the same condition; ℓ is what `DiffusionLoss` descends
    on, at one time step and noise for both, in place of the negative log-likelihood that it bounds.
    """

    def __init__(self, diffusion: DiffusionLoss, reference: Any, solver: Solver, scale: float) -> None:
        """`reference` is on its device, and never trained; `solver` draws no noise; `scale` is β."""
        self.diffusion, self.solver, self.scale = diffusion, solver, scale
        self.reference = reference.eval().requires_grad_(False)

    def measure(self, meters: Meters, loss: Loss, batch: Batch) -> None:
        """Of the real samples."""
        self.diffusion.measure(meters, loss, batch)

    def __call__(self, unet: Any, batch: Batch) -> Loss:
        """Of a model in evaluation mode the plain loss, by which checkpoints are compared."""
        if not unet.training:
            return self.diffusion(unet, batch)
        count = len(batch.clean)
        both = _beside(batch, self.draw(batch))
        with torch.no_grad():
            expected = self.diffusion(self.reference, both).descended
        ours = self.diffusion(unet, both)
        ratio = self.scale * (expected - ours.descended)
        descended = F.softplus(-ratio[:count]) + F.softplus(ratio[count:])
        return Loss(ours.samples[:count], descended, ours.pixels[:count])

    @torch.no_grad()
    def draw(self, batch: Batch) -> Tensor:
        """z̃_0 (B, C, h, w): one patch each, by the reference.

        It begins at the sample's own noise turned by half a turn: another draw than the one for both,
        which like all of a sample comes from (seed, step, sample).
        """
        solver, history = self.solver, SolverState()
        latents = batch.noise.flip(2, 3) * solver.start_scale
        for k, timestep in enumerate(solver.timesteps):
            at = torch.full_like(batch.timestep, timestep)
            estimate = self.reference(latents, at, *batch.given).float()
            latents, history = solver.step(k, estimate, latents, history)
        return latents


def _beside(batch: Batch, drawn: Tensor) -> Batch:
    """The samples, and after them those drawn, under the same conditions, time steps and noise."""
    twice = {name: torch.cat([t, t]) for name, t in vars(batch).items() if t is not None}
    return replace(batch, **{**twice, "clean": torch.cat([batch.clean, drawn.to(batch.clean)])})
