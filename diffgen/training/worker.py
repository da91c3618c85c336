"""One worker: the loop, tied to its model, its data and the run's folder. No Ray in here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DDPMScheduler
from torch import nn

from diffgen import config
from diffgen.data.stream import PatchTable, statistics
from diffgen.models import bundle
from diffgen.models.bundle import ModelName
from diffgen.models.unet import ImageUNet, MaskUNet
from diffgen.sampling.solvers import log_snr
from diffgen.training import cost
from diffgen.training.algorithm import BatchSource, DiffusionLoss, NoiseLevels
from diffgen.training.autoencoder import train_autoencoder
from diffgen.training.folder import RunFolder
from diffgen.training.image_source import CropReader, ImageSource, LiveCrops
from diffgen.training.init_weights import init_from
from diffgen.training.loop import DistContext, train
from diffgen.training.mask_source import MaskSource
from diffgen.training.reports import Link, Reports
from diffgen.training.resident import ResidentCrops
from diffgen.training.samples import held_out, image_grid, mask_grid
from diffgen.training.stored import StoredCrops
from diffgen.training.train_state import TrainState

START = "start"  # the bundle that a run began with


@dataclass(frozen=True)
class TrainTask:
    """What a worker is told; it travels to other nodes."""

    part: ModelName | Literal["autoencoder"]
    data: str
    run: str
    settings: dict[str, Any]
    latents: str | None
    """Folder of stored latents, if the image model is to be trained on them."""
    init_from: str | None
    """The bundle to start from, as the user named it; a copy is in the run."""

    @property
    def diffusion(self) -> ModelName:
        """Which diffusion model it is."""
        assert self.part != "autoencoder"
        return self.part


def train_part(
    task: TrainTask,
    place: DistContext,
    checkpoint: Path | None,
    link: Link,
    wrap: Callable[[Any], nn.Module],
    scratch: Path,
) -> None:
    """Train one model from `checkpoint`, a folder, or from its beginning.

    `wrap` makes of the U-Net what gives gradients of all workers; `scratch` is a folder for what passes.
    """
    settings = config.validate(task.settings).on(place.device.type == "cuda")
    run = RunFolder(task.run)
    if task.part == "autoencoder":
        train_autoencoder(settings, Path(task.data), run, place, checkpoint, link, wrap)
        return
    training, part = settings.training, task.part
    torch.set_num_threads(training.threads)
    torch.manual_seed(settings.seed)
    base = bundle.load(run.pull("base", scratch)).to(place.device)
    unet: Any = _unet(task, base, settings, checkpoint is None, scratch)
    unet.trunk.checkpointing = training.gradient_checkpointing
    unet = unet.to(place.device)
    if training.channels_last:
        unet = unet.to(memory_format=torch.channels_last)
    trainee = TrainState(unet, getattr(training, part), training.max_seconds)
    if checkpoint:
        trainee.read(checkpoint)
    schedule = DDPMScheduler.from_config(base.schedule)
    learned = part == "image" and settings.diffusion.learned_weight
    objective = DiffusionLoss(schedule, settings.diffusion.min_snr, place.device, learned)
    source, check = (
        _source(task, base, settings, objective, split, place.device) for split in ("train", "test")
    )
    reports = Reports(
        run, part, trainee, place.rank, link, _grid(task, base, settings),
        _Scalars(task, settings, base, place),
    )  # fmt: skip
    if place.rank == 0:
        link.tell(start=_greeting(part, trainee, place), step=trainee.step)
    model = wrap(torch.compile(unet) if training.compile else unet)
    try:
        train(
            trainee, model, source, check, objective, place, reports.hooks(),
            training.log_every, training.spike, base.labels.classes if part == "image" else (),
        )  # fmt: skip
        if place.rank == 0 and trainee.step < trainee.part.steps and trainee.out_of_time:
            link.tell(end=_out_of_time(part, trainee))
    finally:
        reports.close()


def _greeting(part: ModelName, trainee: TrainState, place: DistContext) -> str:
    size = sum(p.numel() for p in trainee.unet.parameters()) / 1e6
    step, steps = trainee.step, trainee.part.steps
    how = f"new, {steps} steps" if not step else f"resumed at step {step} of {steps}"
    how = f"was trained already, {step} steps" if trainee.finished else how
    return f"{part} model: {size:.1f} M parameters, {how}, {place.workers} worker(s) on {place.device.type}"


def _out_of_time(part: ModelName, trainee: TrainState) -> str:
    limit, steps = trainee.max_seconds, trainee.part.steps
    return f"{part} model: training.max_seconds {limit:g} are over, stopped at step {trainee.step} of {steps}"


def _unet(
    task: TrainTask, base: bundle.Bundle, settings: config.Settings, fresh: bool, scratch: Path
) -> ImageUNet | MaskUNet:
    """The U-Net of a run that begins or, if not `fresh`, that a checkpoint is read into."""
    unet: ImageUNet | MaskUNet
    if task.part == "mask":
        unet = bundle.new_mask_unet(settings, base.labels, base.mask_codec.channels)
    else:
        unet = bundle.new_image_unet(settings, base.labels)
    if task.init_from and fresh:
        source = bundle.load(RunFolder(task.run).pull(START, scratch / START))
        init_from(unet, task.diffusion, source, base.labels, settings, task.init_from)
    return unet


def _source(
    task: TrainTask,
    base: bundle.Bundle,
    settings: config.Settings,
    objective: DiffusionLoss,
    split: str,
    device: torch.device,
) -> BatchSource:
    """The data of a split."""
    patches = _patches(task, settings, split)
    part, seed, diffusion = getattr(settings.training, task.part), settings.seed, settings.diffusion
    normal = diffusion.noise_mean, diffusion.noise_deviation
    levels = NoiseLevels(
        log_snr(objective.schedule.alphas_cumprod.numpy()),
        normal if diffusion.noise_levels == "log-normal" and task.part == "image" else None,
    )
    if task.part == "mask":
        return MaskSource(patches, base.mask_codec, part.p_conditional, levels, seed)
    sample = settings.autoencoder.sample
    crops: CropReader = LiveCrops(patches, base.codec, sample)
    if task.latents:
        crops = StoredCrops(Path(task.latents), patches, sample)
        if settings.training.resident:
            crops = ResidentCrops(crops, device)
    return ImageSource(crops, settings.image_model, part, base.codec.channels, levels, seed, base.appearance)


def _patches(task: TrainTask, settings: config.Settings, split: str) -> PatchTable:
    """Those of a split; where crops fit in none of them, those of the training."""
    least = settings.widest_patch_px if task.part == "image" else 0
    patches = PatchTable(Path(task.data), task.part, split, settings.training.cache_mb, least)
    return patches if len(patches.drawn) or split == "train" else _patches(task, settings, "train")


def _grid(task: TrainTask, base: bundle.Bundle, settings: config.Settings) -> Any:
    """How samples of this model are drawn."""
    if task.part == "mask":
        return lambda unet: mask_grid(unet, base, settings)
    maps = held_out(_patches(task, settings, "test"), settings.image_patch_px)
    return lambda unet: image_grid(unet, base, maps, settings)


class _Scalars:
    """The loop's figures, with FLOP/s and the label shares of the data beside those that were seen."""

    def __init__(
        self, task: TrainTask, settings: config.Settings, base: bundle.Bundle, place: DistContext
    ) -> None:
        self.flops = cost.count(task.diffusion, settings, base.labels).flops_per_step / place.workers
        shares = statistics(Path(task.data))["class_shares"]["train"] if task.part == "image" else {}
        known = 1 - shares.get("unknown", 0.0) or 1.0
        self.shares = {f"label_share_of_data/{n}": v / known for n, v in shares.items() if n != "unknown"}

    def __call__(self, figures: Mapping[str, float]) -> dict[str, float]:
        return {**figures, "tflop_per_s": figures["steps_per_s"] * self.flops / 1e12, **self.shares}
