"""Tiny bundles whose weights are a function of their names: the same on every machine."""

from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch

from diffgen import config
from diffgen.appearance import NAMES, Appearance
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.models.autoencoder import LatentCodec, LinearAutoencoder
from diffgen.models.conv_autoencoder import ConvAutoencoder
from diffgen.models.mask_codec import GreyLatents, LabelBits
from diffgen.sampling.solvers import noise_schedule
from tests.conftest import TINY

LATENTS = {
    "mask_model": {"encoding": "latents", "factor": 2, "channels": 3},
    "image_model": {
        "conditioning": "joint",
        "context": "wide",
        "conditions": ["context", "appearance"],
        "label_input": True,
    },
}


def fill(model: Any, seed: str) -> Any:
    """The model with weights of about the size that keeps activations where they are."""
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        drawn = 2 * np.random.default_rng(crc32(f"{seed} {name}".encode())).random(shape, np.float32) - 1
        if len(shape) > 1:
            drawn *= np.float32((3 / np.prod(shape[1:])) ** 0.5)
        else:
            drawn = np.float32(0.1) * drawn + np.float32(name.endswith("weight"))
        parameter.data = torch.from_numpy(drawn)
    return model


def make(folder: Path, labels: Labels, changes: dict[str, Any]) -> Path:
    """Both models and a worse image model, of tiny settings with these changes."""
    settings = config.validate(config.merge(TINY, changes))
    latents = settings.mask_model.encoding == "latents"
    own = ConvAutoencoder(4, 4, (8,), (1,), (1,)) if latents else LinearAutoencoder(4, 4)
    deviation = 0.01 if latents else 1.0  # such that pictures are not black and white alone
    codec = LatentCodec(fill(own, "autoencoder"), [0.1, 0.0, -0.1, 0.0], [deviation, deviation / 2] * 2)
    masks: GreyLatents | LabelBits = LabelBits(len(labels))
    if latents:
        masks = GreyLatents(LatentCodec(fill(LinearAutoencoder(2, 3), "masks")), len(labels))
    made = bundle.Bundle(
        bundle.generator_config(settings, codec, masks),
        labels,
        dict(noise_schedule(1000, "squaredcos_cap_v2", "epsilon" if latents else "v_prediction").config),
        codec,
        fill(bundle.new_image_unet(settings, labels), "image"),
        fill(bundle.new_mask_unet(settings, labels, masks.channels), "mask"),
        masks,
        image_guide=fill(bundle.new_image_unet(settings, labels), "guide"),
    )
    if settings.image_model.conditions:
        raw = np.random.default_rng(0).random((40, len(NAMES)), np.float32)
        made.appearance = Appearance.fit(raw, np.repeat([1, 2], 20))
    bundle.save(made, folder, settings, "A test.\n")
    return folder
