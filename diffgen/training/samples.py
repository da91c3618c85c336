"""Grids of samples during training: one-patch canvases under fixed seeds and held-out label maps."""

from functools import partial
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import nn

from diffgen import config
from diffgen.data.stream import Patches
from diffgen.labels import LabelMap, Picture
from diffgen.models.bundle import Bundle
from diffgen.sampling import covers, masks
from diffgen.sampling.canvas import Canvas
from diffgen.sampling.decode import decode
from diffgen.sampling.denoise import image_denoiser, mask_denoiser, run
from diffgen.sampling.seeds import Purpose
from diffgen.sampling.solvers import Solver

COUNT = 8
PURPOSES = (Purpose.TRAINING_SAMPLES, Purpose.IMAGE_COVER, Purpose.IMAGE_STEP_NOISE)


def held_out(patches: Patches, side: int) -> list[LabelMap]:
    """Up to eight label maps (side, side), evenly spread over the labelled patches, from their top left."""
    if not len(patches.labelled):
        return [np.zeros((side, side), np.uint8)] * COUNT
    numbers = patches.labelled[np.linspace(0, len(patches.labelled) - 1, COUNT).astype(int)]
    return [patches.label_map(int(number))[:side, :side] for number in numbers]


@torch.no_grad()
def image_grid(
    unet: nn.Module, bundle: Bundle, label_maps: list[LabelMap], settings: config.Settings
) -> Picture:
    """Label maps in their colours, and below each the image that fills it."""
    facts, sampling = bundle.facts, settings.sampling
    columns = []
    for k, label_map in enumerate(label_maps):
        canvas = _canvas(k, facts.image_channels, masks.on_grid(label_map, facts.factor), bundle, settings)
        latents = run(
            canvas,
            image_denoiser(unet),
            sampling.guidance,
            settings.image_model.conditioning,
            sampling.micro_batch,
        )
        picture = decode(bundle.codec.decode, latents, facts.factor, latents.shape[1], 0.0)
        columns.append(np.stack([bundle.labels.paint(label_map), picture]))
    return rearrange(np.stack(columns), "k row h w z -> (row h) (k w) z")


@torch.no_grad()
def mask_grid(unet: nn.Module, bundle: Bundle, settings: config.Settings) -> Picture:
    """Eight label maps of the mask model at four times their scale, contexts by turns."""
    facts, labels = bundle.facts, bundle.labels
    maps = []
    for k in range(COUNT):
        context = np.full((facts.mask_patch,) * 2, 1 + k % len(labels.contexts), np.uint8)
        canvas = _canvas(k, masks.num_bits(len(labels)), context, bundle, settings)
        bits = run(canvas, mask_denoiser(unet), 0.0, "per_label", settings.sampling.micro_batch)
        maps.append(labels.paint(masks.from_bits(bits, len(labels))).repeat(4, 0).repeat(4, 1))
    return rearrange(np.stack(maps), "(row k) h w z -> (row h) (k w) z", row=2)


def _canvas(k: int, channels: int, label_map: LabelMap, bundle: Bundle, settings: config.Settings) -> Canvas:
    solver = Solver(settings.sampling.solver, bundle.schedule, settings.sampling.steps, settings.sampling.eta)
    rule: Any = partial(covers.jittered, overlap=0.0)
    side = label_map.shape[0]
    return Canvas((channels, side, side), label_map, side, rule, solver, (settings.seed, k), PURPOSES)
