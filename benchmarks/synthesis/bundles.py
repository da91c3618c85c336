"""Bundles and label maps to measure with."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from diffgen import config, label_maps
from diffgen.labels import LabelMap, Labels
from diffgen.models import bundle
from diffgen.models.autoencoder import LatentCodec, LinearAutoencoder
from diffgen.models.mask_codec import num_bits
from diffgen.sampling import denoise
from diffgen.sampling.solvers import noise_schedule
from diffgen.synthesis.plan import Plan
from diffgen.synthesis.render import png

CLASSES = ("unknown", "background", "stroma", "tumour", "necrosis")
NUM_MAPS = 4  # different given label maps
REGION = 1.0  # typical size of a region of the label maps, in patches: about two labels a patch


def demo_bundle(folder: Path) -> Path:
    """A bundle of the demo preset's models with random weights that do not give zeros."""
    return random_bundle(folder, config.load("demo"))


def random_bundle(folder: Path, settings: config.Settings) -> Path:
    """A bundle of these models with random weights that do not give zeros."""
    labels = Labels(CLASSES)
    torch.manual_seed(0)
    autoencoder = settings.autoencoder
    codec = LatentCodec(
        LinearAutoencoder.fit(torch.rand(4, 3, 64, 64) * 2 - 1, autoencoder.factor, autoencoder.channels)
    )
    image = bundle.new_image_unet(settings, labels)
    mask = bundle.new_mask_unet(settings, labels, num_bits(len(labels)))
    for parameter in (*image.parameters(), *mask.parameters()):
        parameter.data += 0.02 * torch.randn_like(parameter)
    diffusion = settings.diffusion
    schedule = dict(noise_schedule(diffusion.steps, diffusion.schedule, diffusion.prediction).config)
    made = bundle.Bundle(bundle.generator_config(settings, codec), labels, schedule, codec, image, mask)
    bundle.save(made, folder, settings, "Random weights, to measure with.\n")
    return folder


def per_label(folder: Path, copy: Path) -> Path:
    """The same bundle, said to be conditioned on one label a forward."""
    bundle.unpack(bundle.pack(folder), copy)
    index = json.loads((copy / bundle.INDEX).read_text())
    (copy / bundle.INDEX).write_text(json.dumps(index | {"conditioning": "per_label"}))
    return copy


def label_map(side: int, region: float, classes: int, seed: int) -> LabelMap:
    """Random regions of all classes, unknown among them, about `region` pixels wide."""
    rng = np.random.default_rng(seed)
    coarse = max(4, round(4 * side / region))
    fields = ndimage.gaussian_filter(rng.standard_normal((classes, coarse, coarse)), (0, 2, 2), mode="wrap")
    nearest = np.arange(side) * coarse // side
    return fields.argmax(axis=0).astype(np.uint8)[np.ix_(nearest, nearest)]


def write_maps(folder: Path, side: int, patch_px: int, classes: int) -> Path:
    folder.mkdir()
    for k in range(NUM_MAPS):
        (folder / f"{k}.png").write_bytes(png(label_map(side, REGION * patch_px, classes, k)))
    return folder


def settings_of(folder: Path, **options: Any) -> config.Settings:
    """The bundle's own settings, and `section__key=value` over them."""
    dotted = {key.replace("__", "."): value for key, value in options.items()}
    return config.load(under=config.read_yaml(folder / "settings.yaml"), options=dotted)


def forwards_of(plan: Plan, index: int) -> int:
    """Base forwards of the image model for an image under its given label map."""
    given = plan.given(index)
    assert given is not None
    model, on_grid = plan.model("image"), label_maps.on_grid(given[1], plan.facts.factor)
    height, width = on_grid.shape
    return denoise.forwards(on_grid, model.covers(height, width, index), *model.guidance)


def side_of(facts: bundle.GeneratorConfig, patches: int) -> int:
    return patches * facts.image_patch * facts.factor
