"""The model card of a bundle."""

from typing import Any

from diffgen import __version__, config
from diffgen.models.bundle import Bundle

CARD = """---
library_name: diffgen
tags: [histopathology, diffusion, synthetic-data]
---

# A diffgen bundle

Draws label maps and fills them with H&E tissue of any size by random patch diffusion
(DiffInfinite, Aversa et al., NeurIPS 2023).

    diffgen synthesize --bundle THIS_FOLDER --n 100 --size 2048 --out out

| part | what |
|---|---|
| image U-Net | {image} |
| mask U-Net | {mask} |
| autoencoder | {autoencoder}, {factor}× with {channels} channels |
| scale | {mpp} µm per pixel; a mask pixel is {pixel_um} µm |
| image patches | {image_patch} latent pixels a side, {image_um:g} µm |
| mask patches | {mask_patch} mask pixels a side, {mask_um:g} µm |

## Classes

| id | name | share of the training pixels |
|---|---|---|
{classes}

Contexts: {contexts}.

## Data

{patches} from {sources} source(s). Whoever shares this bundle states the licence and origin of that data,
and whether its patients consented: weights can hold parts of what they were trained on.

## Limits

Only tissue, stains and scanners like those of the training data. Not for diagnosis. Judge fidelity
and copying before use. Made with diffgen {version}.
"""


def model_card(bundle: Bundle, settings: config.Settings, statistics: dict[str, Any]) -> str:
    """README.md of a bundle, from what is in it and the statistics of the prepared data."""
    facts, labels = bundle.facts, bundle.labels
    shares = statistics["class_shares"]["train"]
    rows = [f"| {i} | {name} | {shares[name]:.1%} |" for i, name in enumerate(labels.classes)]
    return CARD.format(
        image=_described(bundle.image_unet, settings.training.image, settings.training.max_seconds),
        mask=_described(bundle.mask_unet, settings.training.mask, settings.training.max_seconds),
        autoencoder=type(bundle.codec.model).__name__,
        factor=facts.factor,
        channels=facts.image_channels,
        mpp=facts.mpp,
        pixel_um=facts.mask_pixel_um,
        image_patch=facts.image_patch,
        image_um=facts.image_patch * facts.factor * facts.mpp,
        mask_patch=facts.mask_patch_pixels,
        mask_um=facts.mask_patch_pixels * facts.mask_pixel_um,
        classes="\n".join(rows),
        contexts=", ".join(labels.contexts),
        patches=_patches(statistics),
        sources=len(statistics["sources"]),
        version=__version__,
    )


def _described(unet: Any, part: config.Part, max_seconds: float | None) -> str:
    if unet is None:
        return "not trained"
    size = sum(p.numel() for p in unet.parameters()) / 1e6
    end = "" if max_seconds is None else f", at most {max_seconds:g} seconds"
    steps = f"{part.steps} steps" if max_seconds is None else f"at most {part.steps} steps"
    return f"{size:.1f} M parameters, {steps} of batch {part.batch}{end}"


def _patches(statistics: dict[str, Any]) -> str:
    return ", ".join(f"{count['train']} {kind} patches" for kind, count in statistics["patches"].items())
