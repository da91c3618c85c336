"""What a training takes: parameters, FLOPs, memory and time, for `diffgen train --dry-run`.

All but the time is counted on the meta device, where tensors have shapes and no memory, on the very
U-Net that is trained. FLOPs are those of forward and backward of the model, both counted; what gradient
checkpointing computes twice is not among them, as in a model's share of peak it must not be.

At the paper's widths our U-Nets have more parameters than the paper's code, in millions:

|                               | image, ours | paper's | mask, ours | paper's |
|-------------------------------|-------------|---------|------------|---------|
| convolutions of ResNet blocks |       198.6 |   120.6 |       50.1 |    29.6 |
| their scale and shift         |        22.6 |    32.5 |        3.0 |     4.1 |
| attention                     |         3.9 |     2.0 |        0.8 |     1.0 |
| down- and upsampling          |        14.7 |    14.4 |        3.9 |     3.5 |
| embeddings, first, last       |         1.3 |     2.7 |        0.1 |     0.2 |
| together                      |       241.1 |   172.1 |       57.8 |    38.4 |

Three reasons. A level's blocks have its own width on the way down (256, 512, 1024) and the paper's that
of the level above (256, 256, 512), widened by the downsampling after them. On the way up there are three
blocks a level, one for each skip, against two and one more at the end. And attention follows each block
(of the mask model at two levels of four), not each level. The other way round, the paper's code hands each
block the embeddings of time and label side by side, ours their sum.
"""

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import numpy as np
import torch
from diffusers import DDPMScheduler
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from diffgen import config
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.models.autoencoder import BATCH_PIXELS, ENCODER_BYTES_A_PIXEL
from diffgen.models.mask_codec import num_bits
from diffgen.models.unet import ImageUNet, MaskUNet
from diffgen.sampling.solvers import log_snr
from diffgen.training.memory import activation_bytes, example
from diffgen.training.peak import peak

__all__ = ["Cost", "dry_run", "flops_a_step", "measure", "peak", "time_a_step"]

Which = Literal["image", "mask"]
PAPER = {"image": (256, (1, 2, 4), 2, 172.1e6), "mask": (64, (1, 2, 4, 8), 2, 38.4e6)}
"""Width, multipliers, blocks, and the parameters that the paper's code then has."""
STATE_BYTES = 4 + 4 + 8 + 4  # a parameter: itself, its gradient, Adam's two moments, the average
BUCKET_BYTES = 4  # DDP's copy of a gradient
REFERENCE, SHARE = "NVIDIA H100 80GB HBM3", 0.4  # what is assumed where there is no GPU to time
LAUNCH_S = 0.03  # and of a micro-batch at least: about 3,000 kernels, forward and back, at 10 µs
RECOMPUTED = 4 / 3  # forward, forward again, and backward of twice its FLOPs, by forward and backward


@dataclass(frozen=True)
class Cost:
    """What training one model takes."""

    parameters: int
    flops_a_patch: float
    """Forward and backward of one base patch."""
    wide_share: float
    """Share of the samples that are twice as wide, and cost four times as much."""
    batch: int
    steps: int
    workers: int
    micro_batch: int
    """Base patches a worker takes at a time."""
    state_bytes: int
    """A worker's weights, gradients, moments and averaged weights."""
    activation_bytes: int
    """What one micro-batch keeps for its backward pass."""
    encoder_bytes: int
    """Activations of the autoencoder, where it works while the U-Net is trained."""

    @property
    def flops_a_sample(self) -> float:
        """Of a mean sample, wide ones among them."""
        return self.flops_a_patch * (1 + 3 * self.wide_share)

    @property
    def flops_a_step(self) -> float:
        """Of all workers together."""
        return self.flops_a_sample * self.batch

    @property
    def flops(self) -> float:
        """Of the whole training."""
        return self.flops_a_step * self.steps

    @property
    def memory_bytes(self) -> int:
        """A worker's, without what CUDA, cuDNN's workspaces and the allocator's gaps take."""
        return self.state_bytes + self.activation_bytes + self.encoder_bytes

    def seconds(self, flops_per_second: float) -> float:
        """Of the whole training, where each worker reaches so many of these FLOPs a second."""
        return self.flops / (flops_per_second * self.workers)


def measure(part: Which, settings: config.Settings, labels: Labels) -> Cost:
    """Count what training a model takes; of `training.workers` [least, most], with the least."""
    training, of_part = settings.training, _part(part, settings)
    workers = training.worker_range[0]
    wide = wide_share(settings) if part == "image" else 0.0
    with torch.device("meta"):
        unet = _unet(part, settings, labels)
    parameters = sum(p.numel() for p in unet.parameters())
    a_share = -(-of_part.batch // workers)
    micro_batch = min(of_part.micro_batch or a_share, a_share)
    if wide:  # a micro-batch holds at least one wide patch; without a bound, all of a step's, or all others
        whole = max(a_share, round(4 * wide * a_share))
        micro_batch = max(4, min(of_part.micro_batch or whole, whole))
    flops = _flops(unet)
    unet.trunk.checkpointing = training.gradient_checkpointing
    return Cost(
        parameters=parameters,
        flops_a_patch=flops,
        wide_share=wide,
        batch=of_part.batch,
        steps=of_part.steps,
        workers=workers,
        micro_batch=micro_batch,
        state_bytes=parameters * (STATE_BYTES + (BUCKET_BYTES if workers > 1 else 0)),
        activation_bytes=activation_bytes(unet, micro_batch, training.precision == "bf16"),
        encoder_bytes=_encoder_bytes(settings, micro_batch) if part == "image" else 0,
    )


def _encoder_bytes(settings: config.Settings, micro_batch: int) -> int:
    """Activations of an autoencoder that works while the U-Net is trained."""
    if settings.autoencoder.latents == "stored" or settings.autoencoder.kind == "linear":
        return 0
    at_once = BATCH_PIXELS["cuda" if settings.training.gpu else "cpu"]
    return ENCODER_BYTES_A_PIXEL * min(at_once, micro_batch * settings.image_patch_px**2)


def flops_a_step(part: Which, settings: config.Settings, labels: Labels) -> float:
    """Forward and backward of a whole batch, over all workers."""
    with torch.device("meta"):
        flops = _flops(_unet(part, settings, labels))
    wide = wide_share(settings) if part == "image" else 0.0
    return flops * (1 + 3 * wide) * _part(part, settings).batch


def wide_share(settings: config.Settings) -> float:
    """Share of the training samples of the image model that are twice as wide."""
    model, diffusion = settings.image_model, settings.diffusion
    if model.context == "fixed":
        return 0.0
    schedule = DDPMScheduler(
        diffusion.steps, beta_schedule=diffusion.schedule, rescale_betas_zero_snr=diffusion.zero_terminal_snr
    )
    with np.errstate(divide="ignore"):  # at zero SNR
        noisy = log_snr(schedule.alphas_cumprod.numpy()) < model.wide_below
    return float(noisy.mean()) * model.p_wide


def time_a_step(
    part: Which,
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
    unet: Any = _unet(part, settings, labels).to(device)
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
            return cost.flops_a_patch / first
        size = max(1, min(size, int(seconds / first)))
        run(size)
        times = [run(size)]
        while sum(times) + times[-1] < seconds:
            times.append(run(size))
    return cost.flops_a_patch * size / statistics.median(times)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def dry_run(
    parts: Sequence[Which],
    settings: config.Settings,
    labels: Labels,
    console: Console,
    seconds: float = 4.0,
) -> None:
    """Print what training these models takes: parameters, FLOPs, memory, time. Nothing is written.

    The time is by a timing of so many seconds on this machine where training is on a CPU or there is a
    GPU here, else by an assumed share of an H100's peak, and marked as such.
    """
    training = settings.training
    facts: dict[Which, dict[str, str]] = {}
    notes = []
    for part in parts:
        cost = measure(part, settings, labels)
        with console.status(f"timing the {part} model"):
            rate, note = _rate(part, settings, labels, cost, seconds)
        notes.append(f"time of the {part} model: {note}")
        facts[part] = {
            "parameters": f"{cost.parameters / 1e6:.1f} M{_beside(part, settings)}",
            "batch": f"{cost.batch}" + (f", {cost.wide_share:.0%} wide" if cost.wide_share else ""),
            "micro-batch": f"{cost.micro_batch}",
            "TFLOP a step": f"{cost.flops_a_step / 1e12:.3g}",
            "memory a worker": decimal(cost.memory_bytes),
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
    part: Which, settings: config.Settings, labels: Labels, cost: Cost, seconds: float
) -> tuple[float, str]:
    """FLOP/s of one worker, timed for so many seconds or assumed, and how it is known."""
    training = settings.training
    if training.gpu and not torch.cuda.is_available():
        top = peak(REFERENCE, training.precision)
        assert top is not None
        rate = SHARE * top / (RECOMPUTED if training.gradient_checkpointing else 1)
        rate = min(rate, cost.micro_batch * cost.flops_a_patch / LAUNCH_S)
        how = f"{SHARE:.0%} of an H100's {top / 1e12:.0f} TFLOP/s, and {LAUNCH_S * 1e3:.0f} ms a micro-batch"
        return rate, f"ASSUMED {how} at least, as no GPU is here"
    device = torch.device("cuda" if training.gpu else "cpu")
    rate = time_a_step(part, settings, labels, cost, device, seconds=seconds)
    reached = f"{rate / 1e12:.3g} TFLOP/s" if rate > 1e12 else f"{rate / 1e9:.3g} GFLOP/s"
    if not training.gpu:
        cores = os.cpu_count() or 1
        crowded = training.threads * training.worker_range[0] > cores
        fewer = f", but there are {cores} cores here" if crowded else ""
        return rate, f"{reached} as timed here with {training.threads} thread(s){fewer}"
    name = torch.cuda.get_device_name()
    top = peak(name, training.precision)
    return rate, f"{reached} as timed here on {name}" + (f", {rate / top:.0%} of its peak" if top else "")


def _beside(part: Which, settings: config.Settings) -> str:
    """The paper's count, where the settings have its widths and blocks."""
    model = settings.image_model if part == "image" else settings.mask_model
    *shape, theirs = PAPER[part]
    same = [model.width, model.multipliers, model.blocks] == shape
    return f" (paper's code: {theirs / 1e6:.1f} M)" if same else ""


def _part(part: Which, settings: config.Settings) -> config.Part:
    return settings.training.image if part == "image" else settings.training.mask


def _unet(part: Which, settings: config.Settings, labels: Labels) -> ImageUNet | MaskUNet:
    if part == "image":
        return bundle.new_image_unet(settings, labels)
    masks = settings.mask_model
    channels = masks.channels if masks.encoding == "latents" else num_bits(len(labels))
    return bundle.new_mask_unet(settings, labels, channels)


def _flops(unet: ImageUNet | MaskUNet) -> float:
    """Forward and backward of one base patch, by a U-Net on the meta device."""
    with FlopCounterMode(display=False) as counter:
        unet(*example(unet, 1, torch.device("meta"))).sum().backward()
    return float(counter.get_total_flops())


def _duration(seconds: float) -> str:
    """Such as `3 days, 2:10:00`; of long ones only what is known."""
    step = 60 if seconds < 86400 else 3600
    return str(timedelta(seconds=round(seconds / step) * step)) if seconds >= 600 else f"{seconds:.0f} s"
