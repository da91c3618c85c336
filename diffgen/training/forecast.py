"""`diffgen train --dry-run`: what a training takes, and how long, as timed here or assumed.

The time is of forward and backward alone; data, optimiser and `training.compile` are left out.
"""

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from diffgen import config
from diffgen.labels import Labels
from diffgen.models.bundle import ModelName
from diffgen.training.autoencoder import new_autoencoder
from diffgen.training.cost import Cost, measure, unet_of
from diffgen.training.memory import example
from diffgen.training.peak import peak

PAPER = {"image": (256, (1, 2, 4), 2, 172.1e6), "mask": (64, (1, 2, 4, 8), 2, 38.4e6)}
"""Width, multipliers, blocks, and the parameters that the paper's code then has."""
REFERENCE, SHARE = "NVIDIA H100 80GB HBM3", 0.4  # what is assumed where there is no GPU to time
LAUNCH_S = 0.03  # and of a micro-batch at least: about 3,000 kernels, forward and back, at 10 µs
RECOMPUTED = 4 / 3  # forward, forward again, and backward of twice its FLOPs, by forward and backward


def forecast(
    parts: Sequence[Any],
    settings: config.Settings,
    labels: Labels,
    console: Console,
    seconds: float = 4.0,
) -> None:
    """Print what training these models takes: parameters, FLOPs, memory, time. Nothing is written.

    The time is by a timing of so many seconds on this machine where training is on a CPU or there is a
    GPU here, else by an assumed share of an H100's peak, and marked as such.
    """
    if parts == ("autoencoder",):
        size = sum(p.numel() for p in new_autoencoder(settings).parameters())
        steps = settings.training.autoencoder.steps
        console.print(f"autoencoder: {size / 1e6:.2f} M parameters, {steps} steps")
        return
    here = torch.cuda.is_available()
    settings = settings.on(here if settings.gpu is None else settings.gpu)
    training = settings.training
    facts: dict[ModelName, dict[str, str]] = {}
    notes = []
    for part in parts:
        cost = measure(part, settings, labels)
        with console.status(f"timing the {part} model"):
            rate, note = _rate(part, settings, labels, cost, seconds)
        notes.append(f"time of the {part} model: {note}")
        if settings.gpu is None and not here:
            rate_there, note = _assumed(training, cost)
            notes.append(f"on a GPU {_duration(cost.seconds(rate_there))}: {note}")
        facts[part] = {
            "parameters": f"{cost.parameters / 1e6:.1f} M{_beside(part, settings)}",
            "batch": f"{cost.batch}" + (f", {cost.wide_share:.0%} wide" if cost.wide_share else ""),
            "micro-batch": f"{cost.micro_batch}",
            "TFLOP per step": f"{cost.flops_per_step / 1e12:.3g}",
            "memory per worker": decimal(cost.memory_bytes),
            "  of it activations": decimal(cost.activation_bytes),
            "  of it autoencoder": decimal(cost.encoder_bytes),
            "steps": f"{cost.steps}",
            "time": _duration(cost.seconds(rate)),
        }
    table = Table("", *(f"{part} model" for part in parts), box=None, padding=(0, 2))
    for fact in facts[parts[0]]:
        table.add_row(fact, *(facts[part][fact] for part in parts))
    console.print(table)
    workers = f"{training.worker_range[0]} worker" + ("s" if training.worker_range[0] > 1 else "")
    for note in notes:
        console.print(f"{note}, {workers}; without data and optimiser")


def _rate(
    part: ModelName, settings: config.Settings, labels: Labels, cost: Cost, seconds: float
) -> tuple[float, str]:
    """FLOP/s of one worker, timed for so many seconds or assumed, and how it is known."""
    training = settings.training
    if training.gpu and not torch.cuda.is_available():
        return _assumed(training, cost)
    device = torch.device("cuda" if training.gpu else "cpu")
    rate = time_per_step(part, settings, labels, cost, device, seconds=seconds)
    reached = f"{rate / 1e12:.3g} TFLOP/s" if rate > 1e12 else f"{rate / 1e9:.3g} GFLOP/s"
    if not training.gpu:
        cores = os.cpu_count() or 1
        crowded = training.threads * training.worker_range[0] > cores
        fewer = f", but there are {cores} cores here" if crowded else ""
        return rate, f"{reached} as timed here with {training.threads} thread(s){fewer}"
    name = torch.cuda.get_device_name()
    top = peak(name, training.precision)
    return rate, f"{reached} as timed here on {name}" + (f", {rate / top:.0%} of its peak" if top else "")


def _assumed(training: config.Training, cost: Cost) -> tuple[float, str]:
    top = peak(REFERENCE, training.precision)
    assert top is not None
    rate = SHARE * top / (RECOMPUTED if training.gradient_checkpointing else 1)
    rate = min(rate, cost.micro_batch * cost.flops_per_patch / LAUNCH_S)
    how = f"{SHARE:.0%} of an H100's {top / 1e12:.0f} TFLOP/s, and {LAUNCH_S * 1e3:.0f} ms a micro-batch"
    return rate, f"ASSUMED {how} at least, as no GPU is here"


def _beside(part: ModelName, settings: config.Settings) -> str:
    """The paper's count, where the settings have its widths and blocks."""
    model = settings.image_model if part == "image" else settings.mask_model
    *shape, theirs = PAPER[part]
    same = [model.width, model.multipliers, model.blocks] == shape
    return f" (paper's code: {theirs / 1e6:.1f} M)" if same else ""


def _duration(seconds: float) -> str:
    """Such as `3 days, 2:10:00`; of long ones only what is known."""
    step = 60 if seconds < 86400 else 3600
    return str(timedelta(seconds=round(seconds / step) * step)) if seconds >= 600 else f"{seconds:.0f} s"


def time_per_step(
    part: ModelName,
    settings: config.Settings,
    labels: Labels,
    cost: Cost,
    device: torch.device,
    patches: int = 8,
    seconds: float = 4.0,
) -> float:
    """FLOP/s (as `cost` counts them) of forward and backward on a device, as a worker would run them.

    Of micro-batches of at most so many base patches; the median of as many as fit into `seconds`, after
    one that is not counted. A pass that takes longer than that is timed by one patch, once. Data,
    optimiser and `training.compile` are left out.
    """
    training, size = settings.training, min(patches, cost.micro_batch)
    unet: Any = unet_of(part, settings, labels).to(device)
    if training.channels_last:
        unet = unet.to(memory_format=torch.channels_last)
    unet.trunk.checkpointing = training.gradient_checkpointing

    def run(count: int) -> float:
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bf16"):
            out = unet(*example(unet, count, device))
        out.float().square().mean().backward()
        unet.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    with _threads(training.threads):
        first = run(1)
        if first > seconds:
            return cost.flops_per_patch / first
        size = max(1, min(size, int(seconds / first)))
        run(size)
        times = [run(size)]
        while sum(times) + times[-1] < seconds:
            times.append(run(size))
    return cost.flops_per_patch * size / statistics.median(times)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
