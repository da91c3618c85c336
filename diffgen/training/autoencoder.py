"""Training of the small convolutional autoencoder: one worker, by the loop of the diffusion models."""

import math
from collections.abc import Callable
from dataclasses import replace
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
from diffgen.training.folder import RunFolder
from diffgen.training.loop import DistContext, Hooks, train
from diffgen.training.reports import Link, Reports
from diffgen.training.restoration import CropSource, RestorationLoss
from diffgen.training.restorer import Restorer
from diffgen.training.train_state import TrainState

SHOWN = 8


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


def train_autoencoder(
    settings: config.Settings,
    data: Path,
    run: RunFolder,
    place: DistContext,
    checkpoint: Path | None,
    link: Link,
    wrap: Callable[[Any], nn.Module],
) -> None:
    """Train it on the patches in `data` from `checkpoint`, a folder, or from its beginning.

    `wrap` makes of the network what gives gradients of all workers.
    """
    training = settings.training
    torch.set_num_threads(training.threads)
    torch.manual_seed(settings.seed)
    critic = Critic() if training.autoencoder.critic_weight else None
    network: Any = Restorer(new_autoencoder(settings), critic).to(place.device)
    if training.channels_last:
        network = network.to(memory_format=torch.channels_last)
    trainee = TrainState(network, training.autoencoder, training.max_seconds)
    if checkpoint:
        trainee.read(checkpoint)
    patches, held_out = (
        PatchTable(data, "image", split, training.cache_mb, training.autoencoder.crop)
        for split in ("train", "test")
    )
    held_out = held_out if len(held_out.drawn) else patches
    source, check = CropSource(patches, settings), CropSource(held_out, settings)
    pictures = _shown(held_out, settings.autoencoder.factor)
    reports = Reports(
        run, "autoencoder", trainee, place.rank, link, lambda model: grid(model, pictures, place.device), dict
    )
    if place.rank == 0:
        link.tell(start=_greeting(trainee, place), step=trainee.step)
    model = wrap(torch.compile(network) if training.compile else network)
    objective = RestorationLoss(training.autoencoder, lambda: trainee.progress, place.device)
    hooks = _with_psnr(reports, place)
    try:
        train(trainee, model, source, check, objective, place, hooks, training.log_every, training.spike)
    finally:
        reports.close()


def _with_psnr(reports: Reports, place: DistContext) -> Hooks:
    """The hooks of the reports, which also log the held-out loss, a squared error, as PSNR."""
    hooks = reports.hooks()

    def held_out(step: int, squared: float) -> None:
        decibels = 10 * math.log10(4 / max(squared, 1e-12))
        if place.rank == 0:
            if reports.writer:
                reports.writer.add_scalar("train/held_out_psnr", decibels, step)
            reports.link.tell(note=f"autoencoder at step {step}: {decibels:.1f} dB held-out PSNR")
        hooks.held_out(step, squared)

    return replace(hooks, held_out=held_out)


def _greeting(trainee: TrainState, place: DistContext) -> str:
    size = sum(p.numel() for p in trainee.unet.autoencoder.parameters()) / 1e6
    step, steps = trainee.step, trainee.part.steps
    how = f"resumed at step {step} of {steps}" if step else f"new, {steps} steps"
    return f"autoencoder: {size:.2f} M parameters, {how}, {place.workers} worker(s) on {place.device.type}"


def _shown(patches: PatchTable, factor: int) -> list[Picture]:
    """Up to eight pictures, evenly spread, cut to one size that the factor divides."""
    numbers = np.unique(np.linspace(0, len(patches) - 1, SHOWN).astype(int))
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
