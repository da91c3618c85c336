"""`diffgen train`: Algorithm 1 for both models on Ray Train, and the bundle that comes of it.

A run lives in one folder that all nodes see, or behind a URL:
    run.yaml        what shapes its models; a start that would shape others is refused
    settings.yaml   all settings of the last start
    base/           autoencoder, schedule, labels: a bundle without U-Nets
    train/          the last checkpoints of both models (Ray Train)
    best/ history/  the checkpoint of least held-out loss; averaged weights of all, if asked
    tensorboard/ samples/   what one looks at
    bundle/         the result
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console

from diffgen import config
from diffgen.cluster import connect, need
from diffgen.data.stream import Patches, statistics
from diffgen.errors import UserError
from diffgen.labels import LabelMap, Labels
from diffgen.models import autoencoder, bundle
from diffgen.models.mask_codec import GreyLatents, MaskCodec, build_mask_codec
from diffgen.models.unet import ImageUNet, MaskUNet
from diffgen.sampling.decode import from_picture
from diffgen.sampling.solvers import Solver, noise_schedule
from diffgen.training.card import model_card
from diffgen.training.fit import fit
from diffgen.training.folder import RunFolder
from diffgen.training.latents import encode
from diffgen.training.start import init_from
from diffgen.training.trainee import AVERAGED
from diffgen.training.worker import Task, Which

RUN = "run.yaml"
MEASURED_PATCHES = 256  # enough for the statistics of 48 numbers a block


def launch(
    parts: Sequence[Which],
    data: Path,
    run: str,
    settings: config.Settings,
    console: Console,
    start: Path | None = None,
) -> str:
    """Train `parts` on prepared data and return where the bundle is, a folder or a URL.

    `run` is a folder or a URL; with a bundle `start` a new run begins with its weights, autoencoder and
    schedule. Raises `UserError` where the data does not fit the settings, or the run was begun with others.
    """
    data = data.absolute()  # workers have another working folder
    folder = RunFolder(run)
    statistics(data)
    _check_scales(data, settings)
    shaping = _shaping(data, settings, start)
    _check_same(folder, shaping)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        base = _base(parts, data, folder, settings, console, start, place)
        if start is not None and not folder.exists(RUN):
            _say_start(parts, start, base, settings, console)
        folder.write_text(RUN, yaml.safe_dump(shaping, sort_keys=False))
        folder.write_text("settings.yaml", settings.dump())
        connect()
        training = settings.training
        least = training.worker_range[0]
        workers = f"training.workers={least} with training.threads={training.threads}"
        need(least * training.threads, least if training.gpu else 0, workers)
        latents = _latents(parts, data, folder, settings, console, place)
        for part in parts:
            begin = str(start.absolute()) if start else None
            task = Task(part, str(data), folder.url, settings.model_dump(mode="json"), latents, begin)
            with fit(asdict(task), part, folder, training, console).as_directory() as checkpoint:
                folder.push(Path(checkpoint) / AVERAGED, f"bundle/{part}_unet")
        return _finish(data, base, folder, settings, place)


def _finish(data: Path, base: bundle.Bundle, run: RunFolder, settings: config.Settings, place: Path) -> str:
    """The bundle of all that this run has trained, now or before."""
    for make, name in ((ImageUNet, "image_unet"), (MaskUNet, "mask_unet")):
        if run.exists(f"bundle/{name}/config.json"):
            folder = run.pull(f"bundle/{name}", place / name)
            setattr(base, name, make.from_pretrained(folder, low_cpu_mem_usage=False))
    built = place / "bundle"
    bundle.save(base, built, settings, model_card(base, settings, statistics(data)))
    run.push(built, "bundle")
    return f"{run.local or run.url}/bundle"


def prepare_latents(data: Path, run: str, settings: config.Settings, console: Console) -> Path:
    """`diffgen encode`: the run's autoencoder, and the latents of all patches by it."""
    folder, data = RunFolder(run), data.absolute()
    statistics(data)
    _check_scales(data, settings)
    with tempfile.TemporaryDirectory() as scratch:
        _base(["image"], data, folder, settings, console, None, Path(scratch))
        return encode(data, folder.pull("base", Path(scratch) / "base"), settings, console)


def _latents(
    parts: Sequence[Which],
    data: Path,
    run: RunFolder,
    settings: config.Settings,
    console: Console,
    place: Path,
) -> str | None:
    if settings.autoencoder.latents == "live" or "image" not in parts:
        return None
    return str(encode(data, run.pull("base", place / "encoder"), settings, console))


def _say_start(
    parts: Sequence[Which], start: Path, base: bundle.Bundle, settings: config.Settings, console: Console
) -> None:
    """What `--init-from` gives and does not; `UserError` where a model does not fit."""
    source = bundle.load(start)
    for part in parts:
        unet = (
            bundle.new_image_unet(settings, base.labels)
            if part == "image"
            else bundle.new_mask_unet(settings, base.labels, base.mask_codec.channels)
        )
        console.print(init_from(unet, part, source, base.labels, settings, str(start)))


def _shaping(data: Path, settings: config.Settings, start: Path | None) -> dict[str, Any]:
    """The settings that shape the models: those that say how often to look or save do not."""
    tree = settings.model_dump(mode="json")
    sections = ("seed", "prepare", "autoencoder", "image_model", "mask_model", "diffusion")
    looks = {"checkpoint_every", "sample_every", "keep_history", "micro_batch"}
    parts = {
        name: {key: value for key, value in tree["training"][name].items() if key not in looks}
        for name in ("image", "mask")
    }
    begun = {"init_from": str(start.absolute())} if start else {}
    return {"data": str(data), **{key: tree[key] for key in sections}, "training": parts, **begun}


def _check_same(run: RunFolder, shaping: dict[str, Any]) -> None:
    """A run is gone on with only by settings that shape the same models."""
    if (text := run.read_text(RUN)) is not None:
        changed = config.differences(yaml.safe_load(text), shaping)
        if changed:
            what = ", ".join(changed[:3])
            raise UserError(f"run {run.url} was begun with other settings: {what}; choose another --run")


def _check_scales(data: Path, settings: config.Settings) -> None:
    """Patches are cut to a scale: training at another would make a bundle that draws at a wrong one."""
    cut = config.validate(config.read_yaml(data / "settings.yaml"))
    for key in ("prepare.mpp", "mask_model.pixel_um", "mask_model.patch_pixels"):
        section, name = key.split(".")
        then, now = (getattr(getattr(tree, section), name) for tree in (cut, settings))
        if then != now:
            raise UserError(f"{data} was prepared with {key} {then}, training asks for {now}: prepare anew")


def _base(
    parts: Sequence[Which],
    data: Path,
    run: RunFolder,
    settings: config.Settings,
    console: Console,
    start: Path | None,
    place: Path,
) -> bundle.Bundle:
    """The bundle without U-Nets: the autoencoder, fitted or loaded, and measured on the data."""
    if run.exists(f"base/{bundle.INDEX}"):
        return bundle.load(run.pull("base", place / "base"))
    patches, maps = Patches(data, "image"), Patches(data, "mask")
    codec = _started(start, settings, console) or _measured(parts, patches, settings, console)
    chosen = np.unique(np.linspace(0, max(0, len(maps) - 1), MEASURED_PATCHES).astype(int)[: len(maps)])
    label_maps = [maps.label_map(int(n)) for n in chosen]
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
    facts = bundle.facts_of(settings, codec, mask_codec)
    base = bundle.Bundle(facts, patches.labels, dict(schedule.config), codec, mask_codec=mask_codec)
    built = place / "new_base"
    bundle.save(
        base, built, settings, "Autoencoder, schedule and labels of a run: a bundle without U-Nets.\n"
    )
    run.push(built, "base")
    return bundle.load(built)


def _mask_codec(
    start: Path | None,
    settings: config.Settings,
    codec: autoencoder.LatentCodec,
    maps: Sequence[LabelMap],
    labels: Labels,
) -> MaskCodec:
    """That of the bundle to start from, whose mask U-Net knows these latents, or a new one."""
    if start is not None and settings.mask_model.encoding == "latents":
        theirs = bundle.load(start).mask_codec
        if isinstance(theirs, GreyLatents) and theirs.num_classes == len(labels):
            return theirs
    return build_mask_codec(settings, codec, maps, labels)


def _started(
    start: Path | None, settings: config.Settings, console: Console
) -> autoencoder.LatentCodec | None:
    """The autoencoder of a bundle to start from: its U-Net knows these latents and no others."""
    if start is None:
        return None
    codec = bundle.load(start).codec
    asked = settings.autoencoder
    if (codec.factor, codec.channels) != (asked.factor, asked.channels):
        raise UserError(
            f"--init-from {start}: its autoencoder has factor {codec.factor}, {codec.channels} channels; "
            f"the settings say autoencoder.factor {asked.factor}, channels {asked.channels}"
        )
    console.print(f"autoencoder: that of {start}")
    return codec


def _measured(
    parts: Sequence[Which], patches: Patches, settings: config.Settings, console: Console
) -> autoencoder.LatentCodec:
    if not len(patches):
        if "image" in parts:
            raise UserError(f"{patches.folder} holds no image patches to train on")
        return autoencoder.load(settings.autoencoder)  # nothing to measure it on, and nothing to draw with it
    _check_sides(patches, settings)
    numbers = np.unique(np.linspace(0, len(patches) - 1, MEASURED_PATCHES).astype(int))
    images = [torch.from_numpy(from_picture(patches.picture(int(n))))[None] for n in numbers]
    images = [image[..., : settings.image_patch_px, : settings.image_patch_px] for image in images]
    batches = [torch.cat(images[i : i + 16]) for i in range(0, len(images), 16)]
    codec = autoencoder.build(settings.autoencoder, batches)
    quality = autoencoder.psnr(batches[0], codec.decode(codec.encode(batches[0])).clamp(-1, 1))
    made = f"{settings.autoencoder.kind}, {codec.factor}× with {codec.channels} channels"
    console.print(f"autoencoder: {made}, {quality:.1f} dB PSNR")
    return codec


def _check_sides(patches: Patches, settings: config.Settings) -> None:
    smallest = min(min(row["height"], row["width"]) for row in patches.rows)
    widest = max(side for _, side in settings.image_model.sides) * settings.autoencoder.factor
    if smallest < widest:
        what = "twice " if settings.image_model.context == "wide" else ""
        raise UserError(
            f"{patches.folder} holds patches of {smallest} pixels; "
            f"{what}image_model.patch × autoencoder.factor needs {widest}"
        )
