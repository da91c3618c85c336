"""The paper's sampler, as its code runs it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler

from diffgen.labels import LabelMap
from diffgen.sampling import covers, denoise

PAPER_STEPS, PAPER_GUIDANCE = 250, 3.0


def paper_forwards(labels: LabelMap) -> int:
    """A conditional and an ∅ forward for each label of a patch, for label 0 only the ∅ one."""
    present = np.unique(labels)
    return 2 * len(present) - int(0 in present)


def paper_cover(shape: tuple[int, int], patch: int, step: int) -> covers.Cover:
    return covers.random(*shape, patch, np.random.default_rng(step))


@torch.inference_mode()
def paper_sampler(
    network: denoise.Denoiser, channels: int, patch: int, schedule: dict[str, Any], label_map: LabelMap,
    steps: Sequence[int], total: int,
) -> tuple[torch.Tensor, int]:  # fmt: skip
    """Algorithm 2 as the paper and its code run it: those of `total` DDIM steps that are in `steps`.

    Patches one by one, each pixel from the first that holds it; labels one by one, each with its own ∅
    pass, batch 1. Gives the latents (C, H, W) and the forwards.
    """
    scheduler = DDIMScheduler.from_config(
        {**schedule, "clip_sample": False}, timestep_spacing="trailing", set_alpha_to_one=True
    )
    scheduler.set_timesteps(total)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((channels, *label_map.shape), generator=generator)
    forwards = 0
    for step in steps:
        t = scheduler.timesteps[step]
        noise = torch.empty_like(latents)
        cover = paper_cover(label_map.shape, patch, step)
        for number in range(len(cover)):
            rows, columns = cover.box(number)
            crop, labels = latents[None, :, rows, columns], label_map[rows, columns]
            estimate = torch.empty_like(crop[0])
            for label in np.unique(labels):
                null = network(crop, t[None], torch.zeros(1, patch, patch, dtype=torch.uint8)).cpu()[0]
                combined = null
                if label:
                    alone = torch.from_numpy(np.where(labels == label, labels, np.uint8(0))[None])
                    given = network(crop, t[None], alone).cpu()[0]
                    combined = (1 + PAPER_GUIDANCE) * given - PAPER_GUIDANCE * null
                where = torch.from_numpy(labels == label)
                estimate[:, where] = combined[:, where]
                forwards += 2 if label else 1
            owned = torch.from_numpy(cover.owned(number))
            noise[:, rows, columns][:, owned] = estimate[:, owned]
        latents = scheduler.step(noise, t, latents, eta=1.0, generator=generator).prev_sample
    return latents, forwards
