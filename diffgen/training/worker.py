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
from diffgen.sampling.solvers import Solver, log_snr
from diffgen.storage import Folder
from diffgen.training import cost
from diffgen.training.algorithm import NORMAL, BatchSource, DiffusionLoss, NoiseLevels, Objective
from diffgen.training.autoencoder import autoencoder_fitting
from diffgen.training.discriminative import DiscriminativeLoss
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
            base = bundle.load(run.pull("base", Path(scratch))).to(place.device)
            of_diffusion = DiffusionTask(task, settings, base, place)
            fitting = of_diffusion.fitting(state_of, link.checkpoint is None, Path(scratch))
        state = fitting.state
        reports = Reports(run, task.part, fitting, place.rank, link)
        if place.rank == 0:
            link.tell(start=_greeting(task.part, state, place), step=state.step)
        model = link.wrap(torch.compile(state.unet) if training.compile else state.unet)
        try:
            train(fitting, model, place, reports.hooks(), training.log_every, training.spike)
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


@dataclass(frozen=True)
class DiffusionTask:
    """One of the two diffusion models, on what its run stands on."""

    task: TrainTask
    settings: config.Settings
    base: bundle.Bundle
    place: DistContext

    @property
    def of_images(self) -> bool:
        return self.task.part == "image"

    def fitting(self, state_of: Callable[[Any], TrainState], fresh: bool, scratch: Path) -> Fitting:
        """`fresh`: it does not resume; `scratch` is a folder for what passes."""
        settings, base = self.settings, self.base
        unet = self._unet(fresh, scratch)
        unet.trunk.checkpointing = settings.training.gradient_checkpointing
        state = state_of(unet)
        schedule = DDPMScheduler.from_config(base.schedule)
        learned = self.of_images and settings.diffusion.learned_weight
        loss = DiffusionLoss(schedule, settings.diffusion.min_snr, self.place.device, learned)
        source, held_out = (self._source(loss, split) for split in ("train", "test"))
        names = base.labels.classes if self.of_images else ()
        objective = self._discriminative(loss, scratch) or loss
        return Fitting(state, objective, source, held_out, self._grid(), self._scalars(), names)

    def _discriminative(self, loss: DiffusionLoss, scratch: Path) -> Objective | None:
        """What fine-tuning against the network that the run began with descends on, if that is asked for."""
        scale = getattr(self.settings.training, self.task.part).discriminative
        if scale is None:
            return None
        reference = self._unet(True, scratch).to(self.place.device)
        if self.settings.training.channels_last:
            reference = reference.to(memory_format=torch.channels_last)
        steps = cost.drawing_steps(self.task.diffusion, self.settings)
        return DiscriminativeLoss(loss, reference, Solver("dpmsolver++", self.base.schedule, steps), scale)

    def _unet(self, fresh: bool, scratch: Path) -> ImageUNet | MaskUNet:
        """The U-Net of a run that begins or, if not `fresh`, that a checkpoint is read into."""
        task, settings, labels = self.task, self.settings, self.base.labels
        unet: ImageUNet | MaskUNet
        if self.of_images:
            unet = bundle.new_image_unet(settings, labels)
        else:
            unet = bundle.new_mask_unet(settings, labels, self.base.mask_codec.channels)
        if task.init_from and fresh:
            source = bundle.load(Folder(task.run).pull(START, scratch / START))
            init_from(unet, task.diffusion, source, labels, settings, task.init_from)
        return unet

    def _source(self, objective: DiffusionLoss, split: str) -> BatchSource:
        """The data of a split."""
        task, settings, base = self.task, self.settings, self.base
        patches, part, seed = self._patches(split), getattr(settings.training, task.part), settings.seed
        normal = NORMAL if settings.diffusion.noise_levels == "log-normal" and self.of_images else None
        levels = NoiseLevels(log_snr(objective.schedule.alphas_cumprod.numpy()), normal)
        if not self.of_images:
            return MaskSource(patches, base.mask_codec, part.p_conditional, levels, seed)
        sample = settings.autoencoder.sample
        crops: CropReader = LiveCrops(patches, base.codec, sample)
        if task.latents:
            crops = StoredCrops(Path(task.latents), patches, sample)
            if settings.training.resident:
                crops = ResidentCrops(crops, self.place.device)
        return ImageSource(
            crops, settings.image_model, part, base.codec.channels, levels, seed, base.appearance
        )

    def _patches(self, split: str) -> PatchTable:
        """Those of a split; where crops fit in none of them, those of the training."""
        least, task = self.settings.widest_patch_px if self.of_images else 0, self.task
        patches = PatchTable(Path(task.data), task.part, split, self.settings.training.cache_mb, least)
        return patches if len(patches.drawn) or split == "train" else self._patches("train")

    def _grid(self) -> Any:
        """How samples of this model are drawn."""
        base, settings = self.base, self.settings
        if not self.of_images:
            return lambda unet: mask_grid(unet, base, settings)
        maps = held_out_maps(self._patches("test"), settings.image_patch_px)
        return lambda unet: image_grid(unet, base, maps, settings)

    def _scalars(self) -> Callable[[Mapping[str, float]], dict[str, float]]:
        """Adds to the loop's figures FLOP/s and the label shares of the data, beside those that were seen."""
        work = cost.count(self.task.diffusion, self.settings, self.base.labels)
        flops = work.flops_per_step / self.place.workers
        told = statistics(Path(self.task.data))["class_shares"]["train"] if self.of_images else {}
        known = 1 - told.get("unknown", 0.0) or 1.0
        shares = {f"label_share_of_data/{name}": v / known for name, v in told.items() if name != "unknown"}
        return lambda figures: {**figures, "tflop_per_s": figures["steps_per_s"] * flops / 1e12, **shares}
