"""A tiny bundle whose label maps go through an autoencoder, and label maps to fit that to."""

from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from diffgen import config
from diffgen.labels import LabelMap, Labels
from diffgen.models import bundle
from diffgen.models.autoencoder import LatentCodec, LinearAutoencoder
from diffgen.models.mask_codec import build_mask_codec
from diffgen.sampling.solvers import noise_schedule
from tests.conftest import TINY

LATENTS = {"mask_model": {"encoding": "latents", "factor": 2, "channels": 3}}
"""A mask patch of 8 latent pixels is 16 mask pixels, 256 px."""


def settings() -> config.Settings:
    return config.validate(config.merge(TINY, LATENTS))


def blobs(count: int, side: int, classes: int) -> list[LabelMap]:
    """Label maps (side, side) of smooth regions, as tissue has them."""
    rng = np.random.default_rng(0)
    fields = ndimage.gaussian_filter(rng.normal(size=(count, classes, side, side)), (0, 0, 3, 3))
    return list(fields.argmax(axis=1).astype(np.uint8))


def make(folder: Path, labels: Labels) -> Path:
    """Both models, with random weights that do not give zeros."""
    torch.manual_seed(0)
    chosen = settings()
    codec = LatentCodec(LinearAutoencoder.fit(torch.rand(2, 3, 64, 64) * 2 - 1, 4, 4))
    masks = build_mask_codec(chosen, codec, blobs(8, 16, len(labels)), labels)
    image = bundle.new_image_unet(chosen, labels)
    mask = bundle.new_mask_unet(chosen, labels, masks.channels)
    for parameter in (*image.parameters(), *mask.parameters()):
        parameter.data += 0.1 * torch.randn_like(parameter)
    schedule = dict(noise_schedule(1000, "squaredcos_cap_v2", "epsilon").config)
    facts = bundle.generator_config(chosen, codec, masks)
    bundle.save(
        bundle.Bundle(facts, labels, schedule, codec, image, mask, masks), folder, chosen, "A test.\n"
    )
    return folder
