"""One worker of Ray Train: the loop, tied to Ray's checkpoints, TensorBoard and the driver's bar."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DDPMScheduler

from diffgen import config
from diffgen.data.stream import Patches
from diffgen.errors import UserError
from diffgen.labels import Picture
from diffgen.models import bundle
from diffgen.models.unet import ImageUNet, MaskUNet
from diffgen.sampling.masks import num_bits
from diffgen.training.algorithm import ImageSource, MaskSource, Source
from diffgen.training.loop import Hooks, Place, Trainee, train
from diffgen.training.samples import held_out, image_grid, mask_grid

Which = Literal["image", "mask"]
BOARD_INTERVAL_S = 0.3


def work(task: dict[str, Any]) -> None:
    """One worker of Ray Train; a user's mistake is told to the driver instead of being tried again."""
    import ray

    try:
        _train(task)
    except UserError as error:
        ray.get(task["board"].tell.remote(failure=str(error)))


def _train(task: dict[str, Any]) -> None:
    import ray.train
    from ray.train.torch import get_device, prepare_model
    from torch.utils.tensorboard import SummaryWriter

    settings, part, run = config.validate(task["settings"]), task["part"], Path(task["run"])
    torch.set_num_threads(settings.training.threads)
    torch.manual_seed(settings.seed)
    context = ray.train.get_context()
    place = Place(context.get_world_rank(), context.get_world_size(), get_device())
    base = bundle.load(run / "base").to(place.device)
    unet, source, grid = _subject(part, base, Path(task["data"]), settings)
    trainee = Trainee(unet.to(place.device), getattr(settings.training, part))
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            trainee.read(Path(folder))
    tell, writer = task["board"].tell.remote, None
    if place.rank == 0:
        tell(start=_greeting(part, trainee, place), step=trainee.step)
        writer = SummaryWriter(str(run / "tensorboard" / part), purge_step=trainee.step)
    hooks = _hooks(part, run, writer, tell, grid)
    train(trainee, prepare_model(unet), source, DDPMScheduler.from_config(base.schedule), place, hooks)
    if writer:
        writer.close()


def _greeting(part: Which, trainee: Trainee, place: Place) -> str:
    size = sum(p.numel() for p in trainee.unet.parameters()) / 1e6
    step, steps = trainee.step, trainee.part.steps
    how = f"new, {steps} steps" if not step else f"resumed at step {step} of {steps}"
    how = f"was trained already, {steps} steps" if step == steps else how
    return f"{part} model: {size:.1f} M parameters, {how}, {place.workers} worker(s) on {place.device.type}"


def _subject(
    part: Which, base: bundle.Bundle, data: Path, settings: config.Settings
) -> tuple[ImageUNet | MaskUNet, Source, Callable[[Any], Picture]]:
    """The U-Net, its data, and how its samples are drawn."""
    steps, patches = settings.diffusion.steps, Patches(data, part, cache_mb=settings.training.cache_mb)
    if part == "mask":
        p_conditional, classes = settings.training.mask.p_conditional, len(base.labels)
        source: Source = MaskSource(patches, classes, p_conditional, steps, settings.seed)
        unet = bundle.new_mask_unet(settings, base.labels, num_bits(classes))
        return unet, source, lambda unet: mask_grid(unet, base, settings)
    model, p_conditional = settings.image_model, settings.training.image.p_conditional
    source = ImageSource(
        patches, base.codec, model.patch, p_conditional, model.conditioning, steps, settings.seed
    )
    test = Patches(data, part, "test")
    maps = held_out(test if len(test) else patches, settings.image_patch_px)
    return (
        bundle.new_image_unet(settings, base.labels),
        source,
        lambda unet: image_grid(unet, base, maps, settings),
    )


def _hooks(part: Which, run: Path, writer: Any, tell: Any, grid: Callable[[Any], Picture]) -> Hooks:
    """Ties the loop to TensorBoard, the driver's bar and Ray Train's checkpoints."""
    import ray.train
    from PIL import Image

    told = 0.0

    def log(step: int, figures: dict[str, float]) -> None:
        nonlocal told
        for name, value in figures.items():
            writer.add_scalar(f"train/{name}", value, step)
        if time.monotonic() - told > BOARD_INTERVAL_S:
            told = time.monotonic()
            tell(step=step, **figures)

    def sample(step: int, unet: Any) -> None:
        picture = grid(unet)
        writer.add_image("samples", picture, step, dataformats="HWC")
        (run / "samples").mkdir(exist_ok=True)
        Image.fromarray(picture).save(run / "samples" / f"{part}-{step:07d}.png")

    def save(step: int, write: Callable[[Path], None]) -> None:
        if ray.train.get_context().get_world_rank():
            ray.train.report({"step": step})
            return
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report({"step": step}, checkpoint=checkpoint, checkpoint_dir_name=f"step-{step:07d}")
        tell(step=step)

    return Hooks(log, save, sample)
