"""What both models of a run stand on: autoencoder, schedule, labels, and the codec of masks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import torch
import yaml
from rich.console import Console

from diffgen import config, progress
from diffgen.appearance import Appearance
from diffgen.data.stream import PatchTable
from diffgen.errors import UserError
from diffgen.labels import LabelMap, Labels
from diffgen.models import autoencoder, bundle
from diffgen.models.bundle import ModelName
from diffgen.models.mask_codec import GreyLatents, MaskCodec, build_mask_codec
from diffgen.sampling.decode import from_picture
from diffgen.sampling.solvers import Solver, noise_schedule
from diffgen.storage import Folder
from diffgen.training import checkpoints
from diffgen.training.encoder_pool import measure, measure_on_ray
from diffgen.training.train_state import AVERAGED
from diffgen.training.worker import TrainTask

RUN = "run.yaml"
MADE_BY = "base.yaml"
AUTOENCODER: Final = "autoencoder"
MEASURED_PATCHES = 256  # enough for the statistics of 48 numbers per block


class InitBundle(NamedTuple):
    """A bundle to start from."""

    name: str
    """As the user gave it."""
    folder: Path


class Driver(NamedTuple):
    """A command at work on a run, which it has for itself."""

    data: Path
    """On this machine."""
    place: str
    """Where the data is for all: a folder that they see, or a URL."""
    run: Folder
    settings: config.Settings
    console: Console
    inline: bool
    scratch: Path
    """A folder for what passes."""

    def task(self, part: ModelName | Literal["autoencoder"], **more: str | None) -> TrainTask:
        return TrainTask(part, self.place, self.run.url, self.settings.model_dump(mode="json"), **more)

    def keep(self, part: str, target: str) -> None:
        """Put the averaged weights of a network that was trained into the run as `target`."""
        averaged = self.run.pull(f"{checkpoints.last(self.run, part)}/{AVERAGED}", self.scratch / part)
        self.run.push(averaged, target)


def build_base(
    driver: Driver, parts: Sequence[ModelName], shaping: Mapping[str, Any], start: InitBundle | None
) -> bundle.Bundle:
    """The bundle without U-Nets, made at a run's first start and kept in it as `base/`.

    The autoencoder is that of the bundle `start`, or fitted or loaded and measured on the data. A base that
    `diffgen encode` or a start that failed has left is taken if the settings in `shaping` are those of now.
    It is measured by the device that trains: on Ray if only workers have it, unless the driver works inline.
    Raises `UserError` where settings, data and `start` do not fit.
    """
    data, run, settings, console, place = (
        driver.data, driver.run, driver.settings, driver.console, driver.scratch,
    )  # fmt: skip
    made_by = yaml.safe_dump({key: value for key, value in shaping.items() if key != "training"})
    if run.exists(f"base/{bundle.INDEX}") and (run.exists(RUN) or run.read_text(MADE_BY) == made_by):
        return bundle.load(run.pull("base", place / "base"))
    patches, maps = PatchTable(data, "image", least=settings.widest_patch_px), PatchTable(data, "mask")
    trained = _with_trained(settings, run, place)
    codec = _started(start, settings, console) or _measured(parts, patches, trained, console, driver.inline)
    label_maps = [maps.label_map(number) for number in _spread(len(maps))]
    diffusion = settings.diffusion
    schedule = noise_schedule(
        diffusion.steps, diffusion.schedule, diffusion.prediction, diffusion.zero_terminal_snr
    )
    sides = len(settings.image_model.sides)
    for steps in (settings.sampling.steps_for(sides), settings.sampling.mask_steps):
        Solver(settings.sampling.solver, dict(schedule.config), steps)  # says what cannot be sampled
    if not label_maps and "mask" not in parts:  # nothing to fit to, and nothing that needs it
        bits = {"mask_model": settings.mask_model.model_copy(update={"encoding": "bits"})}
        settings = settings.model_copy(update=bits)
    mask_codec = _mask_codec(start, settings, codec, label_maps, patches.labels)
    base = bundle.Bundle(
        bundle.generator_config(settings, codec, mask_codec), patches.labels, dict(schedule.config), codec,
        mask_codec=mask_codec, appearance=_appearance(start, patches, settings),
    )  # fmt: skip
    built = place / "new_base"
    bundle.save(
        base, built, settings, "Autoencoder, schedule and labels of a run: a bundle without U-Nets.\n"
    )
    run.push(built, "base")
    run.write_text(MADE_BY, made_by)
    return bundle.load(built)


def _appearance(
    start: InitBundle | None, patches: PatchTable, settings: config.Settings
) -> Appearance | None:
    """Appearances of the training patches; a bundle to start from keeps the scale that its U-Net knows."""
    if "appearance" not in settings.image_model.conditions or not len(patches):
        return None
    contexts = np.array([1 + patches.context(number) for number in range(len(patches))])
    theirs = None if start is None else bundle.load(start.folder, weights=False).appearance
    if theirs is None:
        return Appearance.fit(patches.appearances, contexts)
    return replace(theirs, vectors=theirs.standardized(patches.appearances), contexts=contexts)


def _mask_codec(
    start: InitBundle | None,
    settings: config.Settings,
    codec: autoencoder.LatentCodec,
    maps: Sequence[LabelMap],
    labels: Labels,
) -> MaskCodec:
    """That of the bundle to start from, whose mask U-Net knows these latents, or a new one."""
    if start is not None and settings.mask_model.encoding == "latents":
        theirs = bundle.load(start.folder).mask_codec
        if isinstance(theirs, GreyLatents) and theirs.num_classes == len(labels):
            return theirs
    return build_mask_codec(settings, codec, maps, labels)


def needs_autoencoder(settings: config.Settings, run: Folder) -> bool:
    """Whether an autoencoder is to be trained first: none is named, and the run has none."""
    return (
        settings.autoencoder.kind == "conv"
        and settings.autoencoder.source is None
        and not run.exists(f"{AUTOENCODER}/config.json")
        and not run.exists(f"base/{bundle.INDEX}")
    )


def _with_trained(settings: config.Settings, run: Folder, place: Path) -> config.Settings:
    """Settings whose autoencoder is that which the run has trained, where they name none."""
    asked = settings.autoencoder
    if asked.kind != "conv" or asked.source or not run.exists(f"{AUTOENCODER}/config.json"):
        return settings
    source = str(run.pull(AUTOENCODER, place / AUTOENCODER))
    return settings.model_copy(update={"autoencoder": asked.model_copy(update={"source": source})})


def _started(
    start: InitBundle | None, settings: config.Settings, console: Console
) -> autoencoder.LatentCodec | None:
    """The autoencoder of a bundle to start from: its U-Net knows these latents and no others."""
    if start is None:
        return None
    codec = bundle.load(start.folder).codec
    asked = settings.autoencoder
    if (codec.factor, codec.channels) != (asked.factor, asked.channels):
        raise UserError(
            f"--init-from {start.name}: its autoencoder has factor {codec.factor}, {codec.channels} channels"
            f"; the settings say autoencoder.factor {asked.factor}, channels {asked.channels}"
        )
    console.print(f"autoencoder: that of {start.name}")
    return codec


def _measured(
    parts: Sequence[ModelName],
    patches: PatchTable,
    settings: config.Settings,
    console: Console,
    inline: bool,
) -> autoencoder.LatentCodec:
    if not len(patches):
        if "image" in parts:
            raise UserError(f"{patches.folder} holds no image patches to train on")
        return autoencoder.load(settings.autoencoder)  # nothing to measure it on, and nothing to draw with it
    _say_small(patches, settings, console)
    asked, training, side = settings.autoencoder, settings.training, settings.image_patch_px
    numbers = patches.drawn[_spread(len(patches.drawn))].tolist()
    together = min(16, max(1, autoencoder.BATCH_PIXELS["cpu"] // side**2))
    with progress.bar(console) as bar:
        task = bar.add_task("measure autoencoder", total=2 * len(numbers), figures="reading patches")
        images = []
        for number in numbers:
            images.append(torch.from_numpy(from_picture(patches.picture(number)[:side, :side])))
            bar.advance(task)
        batches = [torch.stack(images[i : i + together]) for i in range(0, len(images), together)]
        codec = autoencoder.load(asked)
        if asked.kind == "linear":
            fitted = autoencoder.LinearAutoencoder.fit(torch.cat(batches), asked.factor, asked.channels)
            codec = autoencoder.LatentCodec(fitted)
        bar.update(task, figures="on a GPU" if training.gpu else "on the CPU")
        if training.gpu and not inline and not torch.cuda.is_available():
            codec, quality = measure_on_ray(codec, batches, asked.standardize, training)
            bar.advance(task, len(images))
        else:
            device = "cuda" if training.gpu else "cpu"
            codec, quality = measure(
                codec, batches, asked.standardize, device, lambda count: bar.advance(task, count)
            )
    made = f"{settings.autoencoder.kind}, {codec.factor}× with {codec.channels} channels"
    console.print(f"autoencoder: {made}, {quality:.1f} dB PSNR")
    return codec


def _spread(count: int) -> list[int]:
    """Numbers below `count`, evenly spread: all, or `MEASURED_PATCHES` of them."""
    numbers: list[int] = np.unique(np.linspace(0, count - 1, MEASURED_PATCHES).astype(int)).tolist()
    return numbers if count else []


def _say_small(patches: PatchTable, settings: config.Settings, console: Console) -> None:
    """How many patches are too small for the widest crop; `UserError` where all for training are."""
    widest, wide = patches.least, settings.image_model.context == "wide"
    if not len(patches.drawn):
        largest = max(min(row["height"], row["width"]) for row in patches.rows)
        raise UserError(
            f"{patches.folder} holds patches of {largest} pixels; "
            f"{'twice ' if wide else ''}image_model.patch × autoencoder.factor needs {widest}"
        )
    for split, of in (
        ("train", patches),
        ("test", PatchTable(patches.folder, "image", "test", least=widest)),
    ):
        if small := len(of) - len(of.drawn):
            console.print(
                f"{small:,} of {len(of):,} {split} patches are not used: smaller than {widest} pixels"
            )
