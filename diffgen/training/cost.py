"""What a training takes: parameters, FLOPs, memory and time, by one step of the very U-Net that is trained.

FLOPs are counted, on the meta device, by `torch.utils.flop_counter`: those of forward and backward; what
gradient checkpointing computes twice is not among them. Memory is that of a forward pass of a whole
micro-batch of fake tensors, which have shapes alone. Time is that of a step on the device that trains,
scaled to the batch; where that is a GPU and none is here, its speed is assumed.
"""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from diffgen import config
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.models.bundle import ModelName
from diffgen.models.device import computes_bf16
from diffgen.models.mask_codec import num_bits
from diffgen.models.unet import ImageUNet, MaskUNet
from diffgen.sampling.solvers import log_snr
from diffgen.training.algorithm import NORMAL

STATE_BYTES, BUCKET_BYTES = 4 + 4 + 8 + 4, 4
"""A parameter: itself, its gradient, Adam's two moments, the average; and DDP's copy of a gradient."""
MEASURED_PATCHES, RUNS = 8, 3  # at most, in a step that is measured, and how often it is timed
ASSUMED = {"bf16": 396e12, "fp32": 198e12}  # FLOP/s without a GPU: 40 % of an H100's dense bf16 and TF32
RECOMPUTED = 4 / 3  # forward, forward again, and backward of twice its FLOPs, by forward and backward
LAUNCH_S = 0.03  # and of a micro-batch at least: about 3,000 kernels, forward and back, at 10 µs
HOW_ASSUMED = "ASSUMED 40% of an H100's peak, 30 ms a micro-batch at least, as no GPU is here"


@dataclass(frozen=True)
class Work:
    """What one step of a model's training computes."""

    parameters: int
    flops_per_patch: float
    """Forward and backward of one base patch."""
    flops_per_step: float
    """Of all workers together, wide and small samples among them."""
    micro_batch: int
    """Base patches a worker takes at a time."""


@dataclass(frozen=True)
class Speed:
    """How fast one worker is."""

    flops_per_second: float
    """Of forward and backward, as `Work` counts them."""
    optimizer_s: float
    """Of a step."""
    how: str
    spread: tuple[float, float] = (1.0, 1.0)
    """The quickest and the slowest pass, by the median."""


def count(part: ModelName, settings: config.Settings, labels: Labels) -> Work:
    """Count a step; of `training.workers` [least, most], with the least."""
    of_part, workers = getattr(settings.training, part), settings.training.worker_range[0]
    with torch.device("meta"):
        unet = new_unet(part, settings, labels)
    with FlopCounterMode(display=False) as counter:
        unet(*example(unet, 1, torch.device("meta"))).sum().backward()
    flops, wide = float(counter.get_total_flops()), wide_share(settings) if part == "image" else 0.0
    mean = 1 + 3 * wide - (small_saving(settings) if part == "image" else 0.0)
    a_share = -(-of_part.batch // workers)
    micro_batch = min(of_part.micro_batch or a_share, a_share)
    if wide:  # a micro-batch holds at least one wide patch; without a bound, all of a step's, or all others
        whole = max(a_share, round(4 * wide * a_share))
        micro_batch = max(4, min(of_part.micro_batch or whole, whole))
    if of_part.discriminative:  # forward and back of two, and of a reference forward of two and of each step
        mean *= 2 + (2 + drawing_steps(part, settings)) / 3
    parameters = sum(p.numel() for p in unet.parameters())
    return Work(parameters, flops, flops * mean * of_part.batch, micro_batch)


def drawing_steps(part: ModelName, settings: config.Settings) -> int:
    """Steps in which discriminative fine-tuning draws a patch: those of sampling."""
    return settings.sampling.steps_for(1) if part == "image" else settings.sampling.mask_steps


def wide_share(settings: config.Settings) -> float:
    """Share of the image model's samples that are twice as wide, and cost four times as much."""
    return _noisy_share(settings) * settings.image_model.p_wide


def small_saving(settings: config.Settings) -> float:
    """Share of the cost that the smaller samples of the image model save."""
    model = settings.image_model
    if model.small_patch is None:
        return 0.0
    return (1 - _noisy_share(settings)) * model.p_small * (1 - (model.small_patch / model.patch) ** 2)


def _noisy_share(settings: config.Settings) -> float:
    """Share of the samples whose noise is such that they may be wide."""
    model, diffusion = settings.image_model, settings.diffusion
    if model.context == "fixed":
        return 0.0
    if diffusion.noise_levels == "log-normal":  # ln(σ/γ) is minus half the log-SNR
        return 1 - NormalDist(*NORMAL).cdf(-model.wide_below / 2)
    schedule = DDPMScheduler(
        diffusion.steps, beta_schedule=diffusion.schedule, rescale_betas_zero_snr=diffusion.zero_terminal_snr
    )
    with np.errstate(divide="ignore"):  # at zero SNR
        noisy = log_snr(schedule.alphas_cumprod.numpy()) < model.wide_below
    return float(noisy.mean())


def kept_bytes(part: ModelName, settings: config.Settings, labels: Labels, patches: int) -> int:
    """Bytes that a forward pass of base patches keeps for its backward pass, autocast's copies of the weights
    included. With gradient checkpointing they include those of the largest ResNet block, computed again."""
    with FakeTensorMode():
        unet: Any = new_unet(part, settings, labels)
        by_block = _saved(unet, patches, settings.training)
        if not settings.training.gradient_checkpointing:
            return sum(by_block)
        unet.trunk.checkpointing = True
        return sum(_saved(unet, patches, settings.training)) + max(by_block)


def _saved(unet: ImageUNet | MaskUNet, patches: int, training: config.Training) -> list[int]:
    """Bytes of all tensors saved for the backward pass, from one ResNet block to the next."""
    held: dict[int, Tensor] = {}  # by storage, and alive, so that no other gets its address
    weights = {p.untyped_storage()._cdata for p in unet.parameters()}
    by_block = [0]

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in held and storage._cdata not in weights:
            held[storage._cdata] = tensor
            by_block[-1] += storage.nbytes()
        return tensor

    blocks = [module for module in unet.modules() if isinstance(module, ResnetBlock2D)]
    hooks = [block.register_forward_pre_hook(lambda *_: by_block.append(0)) for block in blocks]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        kept_alive = _forward(unet, patches, torch.device("cpu"), training)
    for hook in hooks:
        hook.remove()
    del kept_alive
    return by_block


def measure(
    part: ModelName, settings: config.Settings, labels: Labels, work: Work, seconds: float = 4.0
) -> Speed:
    """Take a step on the device that trains, of as many patches (up to eight) as fit into so many seconds.

    A first pass warms up. A pass that takes longer than that is timed by one patch. Data and
    `training.compile` are left out.
    """
    training = settings.training
    if training.gpu and not torch.cuda.is_available():
        return assumed(work, training)
    device = torch.device("cuda" if training.gpu else "cpu")
    unet: Any = new_unet(part, settings, labels).to(device)
    if training.channels_last:
        unet = unet.to(memory_format=torch.channels_last)
    unet.trunk.checkpointing = training.gradient_checkpointing
    optimizer = torch.optim.Adam(unet.parameters())

    def timed(step: Callable[[], Any]) -> float:
        began = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    def run(patches: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = _forward(unet, patches, device, training).float().square().mean()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's is not annotated

    threads = torch.get_num_threads()
    torch.set_num_threads(training.threads)
    try:
        run(1)
        single = timed(lambda: run(1))
        size = max(1, min(MEASURED_PATCHES, work.micro_batch, int(seconds / single)))
        if size > 1:
            run(size)
        passes = sorted(timed(lambda: run(size)) for _ in range(RUNS))
        taken = statistics.median(passes)
        optimizer.step()  # makes the moments
        optimizer_s = timed(optimizer.step)
    finally:
        torch.set_num_threads(threads)
    rate = work.flops_per_patch * size / taken
    reached = f"{rate / 1e12:.3g} TFLOP/s" if rate > 1e12 else f"{rate / 1e9:.3g} GFLOP/s"
    where, cores = f"with {training.threads} thread(s)", os.cpu_count() or 1
    if training.gpu:
        where = f"on {torch.cuda.get_device_name()}"
    elif training.threads * training.worker_range[0] > cores:
        where += f", but there are {cores} cores here"
    spread = (passes[0] / taken, passes[-1] / taken)
    return Speed(rate, optimizer_s, f"{reached} as timed here {where}", spread)


def assumed(work: Work, training: config.Training) -> Speed:
    rate = ASSUMED["fp32" if training.precision == "fp32" else "bf16"] / (
        RECOMPUTED if training.gradient_checkpointing else 1
    )
    return Speed(min(rate, work.micro_batch * work.flops_per_patch / LAUNCH_S), 0.0, HOW_ASSUMED)


def _forward(unet: Any, patches: int, device: torch.device, training: config.Training) -> Tensor:
    bf16 = computes_bf16(training.precision, torch.device("cuda" if training.gpu else "cpu"))
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        out: Tensor = unet(*example(unet, patches, device))
    return out


def example(unet: ImageUNet | MaskUNet, patches: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """What a U-Net takes, for so many base patches: noise, time steps, and label maps or contexts of ∅."""
    side, channels = unet.config["patch"], unet.config["channels"]
    condition = (patches, side, side) if isinstance(unet, ImageUNet) else (patches,)
    steps = torch.arange(patches, device=device)
    noise = torch.randn(patches, channels, side, side, device=device)
    return noise, steps, torch.zeros(condition, dtype=torch.long, device=device)


def new_unet(part: ModelName, settings: config.Settings, labels: Labels) -> ImageUNet | MaskUNet:
    if part == "image":
        return bundle.new_image_unet(settings, labels)
    masks = settings.mask_model
    channels = masks.channels if masks.encoding == "latents" else num_bits(len(labels))
    return bundle.new_mask_unet(settings, labels, channels)
