"""`diffgen train --dry-run`: what training takes, from what a step costs."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from diffgen import config
from diffgen.labels import Labels
from diffgen.models.autoencoder import BATCH_PIXELS, ENCODER_BYTES_PER_PIXEL
from diffgen.models.bundle import ModelName
from diffgen.training.autoencoder import new_autoencoder
from diffgen.training.cost import BUCKET_BYTES, STATE_BYTES, assumed, count, kept_bytes, measure, wide_share

NOISY = 1.1
"""By how much the timed passes may differ before a range is given."""


def forecast(
    parts: Sequence[Any],
    settings: config.Settings,
    labels: Labels,
    console: Console,
    seconds: float = 4,
) -> None:
    """`diffgen train --dry-run`: print what training these models takes. Nothing is written."""
    if parts == ("autoencoder",):
        size, steps = new_autoencoder(settings).num_parameters(), settings.training.autoencoder.steps
        console.print(f"autoencoder: {size / 1e6:.2f} M parameters, {steps} steps")
        return
    here = torch.cuda.is_available()
    settings = settings.on(here if settings.gpu is None else settings.gpu)
    workers = settings.training.worker_range[0]
    columns: dict[str, dict[str, str]] = {}
    notes = []
    for part in parts:
        of_part, work = getattr(settings.training, part), count(part, settings, labels)
        with console.status(f"measuring a step of the {part} model"):
            speed = measure(part, settings, labels, work, seconds)
            at_once = work.micro_batch * (2 if of_part.discriminative else 1)  # those drawn beside the real
            kept = kept_bytes(part, settings, labels, at_once)
        notes.append(f"time of the {part} model: {speed.how}, {workers} worker{'s' * (workers > 1)}")
        if settings.gpu is None and not here:
            there = assumed(work, settings.training)
            taken = of_part.steps * work.flops_per_step / (there.flops_per_second * workers)
            notes.append(f"on a GPU {_duration(taken)}: {there.how}")
        state = work.parameters * (STATE_BYTES + (BUCKET_BYTES if workers > 1 else 0))
        wide = wide_share(settings) if part == "image" else 0.0
        encoder = _encoder_bytes(part, settings, work.micro_batch)
        step_s = work.flops_per_step / (speed.flops_per_second * workers) + speed.optimizer_s
        columns[part] = {
            "parameters": f"{work.parameters / 1e6:.1f} M",
            "batch": f"{of_part.batch}" + (f", {wide:.0%} wide" if wide else ""),
            "micro-batch": f"{work.micro_batch}",
            "TFLOP per step": f"{work.flops_per_step / 1e12:.3g}",
            "memory per worker": decimal(state + kept + encoder),
            "  of it activations": decimal(kept),
            "  of it autoencoder": decimal(encoder),
            "steps": f"{of_part.steps}",
            "time": _about(step_s * of_part.steps, speed.spread),
        }
    table = Table("", *(f"{part} model" for part in parts), box=None, padding=(0, 2))
    for name in columns[parts[0]]:
        table.add_row(name, *(columns[part][name] for part in parts))
    console.print(table, *(f"{note}; without data" for note in notes), sep="\n")


def _encoder_bytes(part: ModelName, settings: config.Settings, micro_batch: int) -> int:
    """Activations of an autoencoder that works while the U-Net is trained."""
    if part == "mask" or settings.autoencoder.latents == "stored" or settings.autoencoder.kind == "linear":
        return 0
    at_once = BATCH_PIXELS["cuda" if settings.training.gpu else "cpu"]
    return ENCODER_BYTES_PER_PIXEL * min(at_once, micro_batch * settings.image_patch_px**2)


def _about(seconds: float, spread: tuple[float, float]) -> str:
    """A time that was measured, and between which others it may be, where its passes differed."""
    low, middle, high = (_duration(seconds * factor) for factor in (spread[0], 1.0, spread[1]))
    return f"about {middle}" + (f" ({low} to {high})" if spread[1] / spread[0] > NOISY else "")


def _duration(seconds: float) -> str:
    """Such as `3 days, 2:10:00`; of long ones only what is known."""
    step = 60 if seconds < 86400 else 3600
    return str(timedelta(seconds=round(seconds / step) * step)) if seconds >= 600 else f"{seconds:.0f} s"
