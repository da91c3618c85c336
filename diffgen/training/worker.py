"""Worker: the loop, tied to its network, its data and the run's folder. No Ray in here."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DDPMScheduler

from diffgen import config
from diffgen.data.remote import local
from diffgen.data.stream import PatchTable, statistics
from diffgen.models import bundle
from diffgen.models.bundle import ModelName
from diffgen.models.unet import ImageUNet, MaskUNet
from diffgen.sampling.solvers import log_snr
from diffgen.storage import Folder
from diffgen.training import cost
from diffgen.training.algorithm import NORMAL, BatchSource, DiffusionLoss, NoiseLevels
from diffgen.training.autoencoder import autoencoder_fitting
from diffgen.training.image_source import CropReader, ImageSource, LiveCrops
from diffgen.training.init_weights import init_from
from diffgen.training.loop import DistContext, train
from diffgen.training.mask_source import MaskSource
from diffgen.training.resident import ResidentCrops
from diffgen.training.samples import held_out_maps, image_grid, mask_grid
from diffgen.training.stored import StoredCrops
from diffgen.training.train_state import Fitting, TrainState
from diffgen.training.worker_link import Link
from diffgen.training.worker_reports import Reports

START = "start"  # the bundle that a run began with


@dataclass(frozen=True)
class TrainTask:
    """What a worker is to do; it travels to other nodes."""

    part: ModelName | Literal["autoencoder"]
    data: str
    run: str
    settings: dict[str, Any]
    latents: str | None = None
    """Folder of stored latents, if the image model is to be trained on them."""
    init_from: str | None = None
    """The bundle to start from, as the user named it; a copy is in the run."""

    @property
    def diffusion(self) -> ModelName:
        """Which diffusion model it is."""
        assert self.part != "autoencoder"
        return self.part


def train_part(task: TrainTask, link: Link) -> None:
    """Train one network from its last checkpoint, or from its beginning."""
    with link, tempfile.TemporaryDirectory() as scratch:
        if link.over:
            return
        run, place = Folder(task.run), link.place
        task = replace(task, data=str(local(task.data)))
        settings = config.validate(task.settings).on(place.device.type == "cuda")
        training = settings.training
        torch.set_num_threads(training.threads)
        torch.manual_seed(settings.seed)

        def state_of(network: Any) -> TrainState:
            network = network.to(place.device)
            if training.channels_last:
                network = network.to(memory_format=torch.channels_last)
            state = TrainState(network, getattr(training, task.part), training.max_seconds)
            if link.checkpoint:
                state.read(link.checkpoint)
            return state

        if task.part == "autoencoder":
            fitting = autoencoder_fitting(settings, Path(task.data), place.device, state_of)
        else:
            fresh = link.checkpoint is None
            fitting = _diffusion_fitting(task, settings, place, state_of, fresh, Path(scratch))
        state = fitting.state
        reports = Reports(run, task.part, fitting, place.rank, link)
        if place.rank == 0:
            link.tell(start=_greeting(task.part, state, place), step=state.step)
        model = link.wrap(torch.compile(state.unet) if training.compile else state.unet)
        try:
            train(
                state, model, fitting.source, fitting.held_out, fitting.objective, place, reports.hooks(),
                training.log_every, training.spike, fitting.names,
            )  # fmt: skip
            if place.rank == 0 and state.step < state.part.steps and state.out_of_time:
                link.tell(end=_out_of_time(task.part, state))
        finally:
            reports.close()


def _title(part: str) -> str:
    return part if part == "autoencoder" else f"{part} model"


def _greeting(part: str, state: TrainState, place: DistContext) -> str:
    kept = getattr(state.unet, "autoencoder", state.unet)  # not its critic
    size = sum(p.numel() for p in kept.parameters()) / 1e6
    step, steps = state.step, state.part.steps
    how = f"new, {steps} steps" if not step else f"resumed at step {step} of {steps}"
    how = f"was trained already, {step} steps" if state.finished else how
    digits = 2 if part == "autoencoder" else 1
    workers = f"{place.workers} worker(s) on {place.device.type}"
    return f"{_title(part)}: {size:.{digits}f} M parameters, {how}, {workers}"


def _out_of_time(part: str, state: TrainState) -> str:
    limit, steps = state.max_seconds, state.part.steps
    return f"{_title(part)}: training.max_seconds {limit:g} are over, stopped at step {state.step} of {steps}"


def _diffusion_fitting(
    task: TrainTask,
    settings: config.Settings,
    place: DistContext,
    state_of: Callable[[Any], TrainState],
    fresh: bool,
    scratch: Path,
) -> Fitting:
    """A diffusion model's. `fresh`: it does not resume; `scratch` is a folder for what passes."""
    base = bundle.load(Folder(task.run).pull("base", scratch)).to(place.device)
    unet = _unet(task, base, settings, fresh, scratch)
    unet.trunk.checkpointing = settings.training.gradient_checkpointing
    state, image = state_of(unet), task.part == "image"
    schedule = DDPMScheduler.from_config(base.schedule)
    learned = image and settings.diffusion.learned_weight
    objective = DiffusionLoss(schedule, settings.diffusion.min_snr, place.device, learned)
    source, held_out = (
        _source(task, base, settings, objective, split, place.device) for split in ("train", "test")
    )
    return Fitting(
        state, objective, source, held_out, _grid(task, base, settings),
        _scalars(task, settings, base, place), base.labels.classes if image else (),
    )  # fmt: skip


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
        source = bundle.load(Folder(task.run).pull(START, scratch / START))
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
    levels = NoiseLevels(
        log_snr(objective.schedule.alphas_cumprod.numpy()),
        NORMAL if diffusion.noise_levels == "log-normal" and task.part == "image" else None,
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
    maps = held_out_maps(_patches(task, settings, "test"), settings.image_patch_px)
    return lambda unet: image_grid(unet, base, maps, settings)


def _scalars(
    task: TrainTask, settings: config.Settings, base: bundle.Bundle, place: DistContext
) -> Callable[[Mapping[str, float]], dict[str, float]]:
    """Adds to the loop's figures FLOP/s and the label shares of the data, beside those that were seen."""
    flops = cost.count(task.diffusion, settings, base.labels).flops_per_step / place.workers
    all_shares = statistics(Path(task.data))["class_shares"]["train"] if task.part == "image" else {}
    known = 1 - all_shares.get("unknown", 0.0) or 1.0
    shares = {f"label_share_of_data/{n}": v / known for n, v in all_shares.items() if n != "unknown"}
    return lambda figures: {**figures, "tflop_per_s": figures["steps_per_s"] * flops / 1e12, **shares}
