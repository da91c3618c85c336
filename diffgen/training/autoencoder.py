"""The small convolutional autoencoder, trained by the loop of the diffusion models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import nn

from diffgen import config
from diffgen.data.stream import PatchTable
from diffgen.errors import UserError
from diffgen.labels import Picture
from diffgen.models.autoencoder import load
from diffgen.models.conv_autoencoder import ConvAutoencoder
from diffgen.models.critic import Critic
from diffgen.sampling.decode import from_picture, to_picture
from diffgen.training.restoration import CropSource, RestorationLoss, Restorer
from diffgen.training.train_state import Fitting, TrainState

PICTURES = 8


def new_autoencoder(settings: config.Settings) -> ConvAutoencoder:
    """The autoencoder of the settings, with fresh weights, or those of its source under a fixed encoder.

    Raises `UserError` where the settings do not fit.
    """
    asked, part = settings.autoencoder, settings.training.autoencoder
    if asked.kind != "conv":
        raise UserError(f"autoencoder.kind {asked.kind!r} is not trained: only 'conv' is")
    if part.crop % asked.factor:
        raise UserError(
            f"training.autoencoder.crop {part.crop} is not a multiple of autoencoder.factor {asked.factor}"
        )
    if part.decoder_only:
        given: Any = load(asked).model
        given.encoder.requires_grad_(False)
        given.decoder.requires_grad_(True)
        return given  # type: ignore[no-any-return]  # a ConvAutoencoder, by its kind
    try:
        return ConvAutoencoder(
            asked.channels, asked.factor, part.widths, part.encoder_blocks, part.decoder_blocks
        )
    except ValueError as error:
        raise UserError(f"training.autoencoder.widths {list(part.widths)}: autoencoder.{error}") from error


def autoencoder_fitting(
    settings: config.Settings, data: Path, device: torch.device, state_of: Callable[[Any], TrainState]
) -> Fitting:
    """That of the autoencoder, on the patches in `data`."""
    training = settings.training
    critic = Critic() if training.autoencoder.critic_weight else None
    state = state_of(Restorer(new_autoencoder(settings), critic))
    patches, held_out = (
        PatchTable(data, "image", split, training.cache_mb, training.autoencoder.crop)
        for split in ("train", "test")
    )
    held_out = held_out if len(held_out.drawn) else patches
    pictures = _pictures(held_out, settings.autoencoder.factor)
    return Fitting(
        state,
        RestorationLoss(training.autoencoder, lambda: state.progress, device),
        CropSource(patches, settings),
        CropSource(held_out, settings),
        lambda model: grid(model, pictures, device),
        psnr=True,
    )


def _pictures(patches: PatchTable, factor: int) -> list[Picture]:
    """Up to eight pictures, evenly spread, cut to one size that the factor divides."""
    numbers = np.unique(np.linspace(0, len(patches) - 1, PICTURES).astype(int))
    pictures = [patches.picture(int(number)) for number in numbers]
    side = min(min(picture.shape[:2]) for picture in pictures) // factor * factor
    return [picture[:side, :side] for picture in pictures]


@torch.no_grad()
def grid(model: nn.Module, pictures: list[Picture], device: torch.device) -> Picture:
    """Real pictures, and below each what is decoded of it."""
    decoded = []
    for picture in pictures:
        restored = model(torch.from_numpy(from_picture(picture))[None].to(device))
        decoded.append(to_picture(restored.decoded[0].float().cpu().numpy()))
    rows = np.stack([np.stack(pictures), np.stack(decoded)])
    return rearrange(rows, "row k h w z -> (row h) (k w) z")
