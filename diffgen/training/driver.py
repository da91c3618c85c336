"""Driver of `diffgen train`: Algorithm 1 for both models, on Ray or inline, and the bundle that comes of it.

A run lives in one folder that all nodes see, or behind a URL:
    run.yaml        what shapes its models; a start that would shape others is refused
    settings.yaml   all settings of the last start
    autoencoder/    the autoencoder that was trained in it, of kind `conv`
    base/           autoencoder, schedule, labels: a bundle without U-Nets
    start/          the bundle of --init-from
    train/          the last checkpoints of both models, as Ray Train keeps them
    best/ history/  the checkpoint of least held-out loss; averaged weights of all, if asked
    tensorboard/ samples/   what one looks at
    bundle/         the result
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from diffgen import config
from diffgen.cluster import connect, need, on_gpus
from diffgen.data.stream import statistics
from diffgen.errors import UserError
from diffgen.models import bundle
from diffgen.models.bundle import ModelName
from diffgen.models.unet import ImageUNet, MaskUNet
from diffgen.training import checkpoints
from diffgen.training.autoencoder import new_autoencoder
from diffgen.training.card import model_card
from diffgen.training.driver_base import AUTOENCODER, RUN, InitBundle, build_base, needs_autoencoder
from diffgen.training.driver_fit import fit_inline, fit_on_ray
from diffgen.training.folder import RunFolder, fetched
from diffgen.training.init_weights import init_from
from diffgen.training.latents import encode
from diffgen.training.lock import held
from diffgen.training.train_state import AVERAGED
from diffgen.training.worker import START, TrainTask

RATES = ("lr", "clip")
AUTOENCODER_MADE_BY = "autoencoder.yaml"


def launch(
    parts: Sequence[ModelName],
    data: Path,
    run: str,
    settings: config.Settings,
    console: Console,
    start: str | None = None,
    inline: bool = False,
) -> str:
    """Train `parts` on prepared data and return where the bundle is, a folder or a URL.

    `run` is a folder or a URL; with a bundle `start`, too, a new run begins with its weights, autoencoder
    and schedule. `inline`: in this process, without Ray. Raises `UserError` where the data does not fit the
    settings, the run was begun with others, or another command works on it.
    """
    data = data.absolute()  # workers have another working folder
    folder = RunFolder(run)
    statistics(data)
    _check_scales(data, settings)
    settings = settings.on(on_gpus(settings.gpu, inline))
    shaping = _shaping(data, settings, start)
    with held(folder, console), tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        _check_same(folder, shaping)
        _say_rates(folder, settings, console)
        begin = InitBundle(start, fetched(start, place / START)) if start else None
        if not begin and needs_autoencoder(settings, folder):
            _fit_autoencoder(data, folder, settings, console, place, inline)
        base = build_base(parts, data, folder, shaping, settings, console, begin, place, inline)
        if begin and not folder.exists(RUN):
            _say_start(parts, begin, base, settings, console)
            folder.push(begin.folder, START)
        folder.write_text(RUN, yaml.safe_dump(shaping, sort_keys=False))
        folder.write_text("settings.yaml", settings.dump())
        if not inline:
            _need_workers(settings.training)
        latents = _latents(parts, data, folder, settings, console, place, inline)
        for part in parts:
            task = TrainTask(part, str(data), folder.url, settings.model_dump(mode="json"), latents, start)
            (fit_inline if inline else fit_on_ray)(task, folder, settings.training, console)
            averaged = folder.pull(f"{checkpoints.last(folder, part)}/{AVERAGED}", place / part)
            folder.push(averaged, f"bundle/{part}_unet")
        return _finish(data, base, folder, settings, place)


def launch_autoencoder(
    data: Path, run: str, settings: config.Settings, console: Console, inline: bool = False
) -> str:
    """`diffgen train autoencoder`: train it on prepared data and return where it is, a folder or a URL.

    A run that uses its autoencoder already keeps it: `UserError`.
    """
    data, folder = data.absolute(), RunFolder(run)
    statistics(data)
    _check_scales(data, settings)
    settings = settings.on(on_gpus(settings.gpu, inline))
    with held(folder, console), tempfile.TemporaryDirectory() as scratch:
        if folder.exists(RUN):
            raise UserError(f"run {folder.url} has models that know its autoencoder; choose another --run")
        _fit_autoencoder(data, folder, settings, console, Path(scratch), inline)
    return f"{folder.local or folder.url}/{AUTOENCODER}"


def _fit_autoencoder(
    data: Path, run: RunFolder, settings: config.Settings, console: Console, place: Path, inline: bool
) -> None:
    new_autoencoder(settings)  # says here what does not fit
    if not inline:
        _need_workers(settings.training)
    tree = settings.model_dump(mode="json")
    shape = {key: tree[key] for key in ("seed", "autoencoder")} | {"training": tree["training"][AUTOENCODER]}
    _check_same(run, shape, AUTOENCODER_MADE_BY)
    run.write_text(AUTOENCODER_MADE_BY, yaml.safe_dump(shape, sort_keys=False))
    task = TrainTask("autoencoder", str(data), run.url, tree, None, None)
    (fit_inline if inline else fit_on_ray)(task, run, settings.training, console)
    last = run.pull(f"{checkpoints.last(run, AUTOENCODER)}/{AVERAGED}", place / AUTOENCODER)
    run.push(last, AUTOENCODER)


def _need_workers(training: config.Training) -> None:
    connect()
    least = training.worker_range[0]
    workers = f"training.workers={least} with threads={training.threads}"
    need(least * training.threads, least if training.gpu else 0, workers)


def _finish(data: Path, base: bundle.Bundle, run: RunFolder, settings: config.Settings, place: Path) -> str:
    """The bundle of all that this run has trained, now or before."""
    for make, name in ((ImageUNet, "image_unet"), (MaskUNet, "mask_unet")):
        if run.exists(f"bundle/{name}/config.json"):
            folder = run.pull(f"bundle/{name}", place / name)
            setattr(base, name, make.from_pretrained(folder, low_cpu_mem_usage=False))
    if (share := settings.training.image.guide_at) is not None and base.image_unet is not None:
        base.image_guide = _guide(run, share, place)
    built = place / "bundle"
    bundle.save(base, built, settings, model_card(base, settings, statistics(data)))
    run.push(built, "bundle")
    return f"{run.local or run.url}/bundle"


def _guide(run: RunFolder, share: float, place: Path) -> ImageUNet | None:
    """The averaged image U-Net of the checkpoint nearest to a share of the steps taken, which time may have
    ended; None where there is no checkpoint before the last: the last guides itself nowhere."""
    folders = {Path(name).parts[0] for name in run.files("history/image")}
    kept = sorted(int(name.removeprefix("step-")) for name in folders if name.startswith("step-"))
    if len(kept) < 2:
        return None
    *earlier, last = kept
    nearest = min(earlier, key=lambda step: abs(step - share * last))
    folder = run.pull(f"history/image/{checkpoints.name_of(nearest)}", place / "guide")
    guide: ImageUNet = ImageUNet.from_pretrained(folder, low_cpu_mem_usage=False)
    return guide


def prepare_latents(
    data: Path, run: str, settings: config.Settings, console: Console, inline: bool = False
) -> Path:
    """`diffgen encode`: the run's autoencoder, and the latents of all patches by it."""
    folder, data = RunFolder(run), data.absolute()
    statistics(data)
    _check_scales(data, settings)
    settings = settings.on(on_gpus(settings.gpu, inline))
    with held(folder, console), tempfile.TemporaryDirectory() as scratch:
        build_base(
            ["image"], data, folder, _shaping(data, settings, None), settings, console, None, Path(scratch),
            inline,
        )  # fmt: skip
        return encode(data, folder.pull("base", Path(scratch) / "base"), settings, console, inline)


def _latents(
    parts: Sequence[ModelName],
    data: Path,
    run: RunFolder,
    settings: config.Settings,
    console: Console,
    place: Path,
    inline: bool,
) -> str | None:
    if settings.autoencoder.latents == "live" or "image" not in parts:
        return None
    return str(encode(data, run.pull("base", place / "encoder"), settings, console, inline))


def _say_start(
    parts: Sequence[ModelName],
    start: InitBundle,
    base: bundle.Bundle,
    settings: config.Settings,
    console: Console,
) -> None:
    """What `--init-from` gives and does not; `UserError` where a model does not fit."""
    source = bundle.load(start.folder)
    for part in parts:
        unet = (
            bundle.new_image_unet(settings, base.labels)
            if part == "image"
            else bundle.new_mask_unet(settings, base.labels, base.mask_codec.channels)
        )
        console.print(init_from(unet, part, source, base.labels, settings, start.name))


def _shaping(data: Path, settings: config.Settings, start: str | None) -> dict[str, Any]:
    """The settings that a run is begun with and stays with.

    How often to look or save is not among them; nor are `lr` and `clip`, so that a training which broke
    down can go on with others.
    """
    tree = settings.model_dump(mode="json")
    sections = ("seed", "prepare", "autoencoder", "image_model", "mask_model", "diffusion")
    free = {"checkpoint_every", "sample_every", "keep_history", "guide_at", "micro_batch", *RATES}
    parts = {
        name: {key: value for key, value in tree["training"][name].items() if key not in free}
        for name in ("image", "mask")
    }
    begun = {"init_from": start if "://" in start else str(Path(start).absolute())} if start else {}
    return {"data": str(data), **{key: tree[key] for key in sections}, "training": parts, **begun}


def _check_same(run: RunFolder, shaping: dict[str, Any], name: str = RUN) -> None:
    """A run resumes only with settings that shape the same models."""
    if (text := run.read_text(name)) is not None:
        changed = config.differences(yaml.safe_load(text), shaping)
        if changed:
            what = ", ".join(changed[:3])
            raise UserError(f"run {run.url} was begun with other settings: {what}; choose another --run")


def _say_rates(run: RunFolder, settings: config.Settings, console: Console) -> None:
    """What a run goes on with that was another at its last start."""
    if (text := run.read_text("settings.yaml")) is None or not run.exists(RUN):
        return
    before, now = (
        {part: {key: tree["training"][part][key] for key in RATES} for part in ("image", "mask")}
        for tree in (yaml.safe_load(text), settings.model_dump(mode="json"))
    )
    for change in config.differences(before, now):
        console.print(f"from here on: training.{change}", highlight=False)


def _check_scales(data: Path, settings: config.Settings) -> None:
    """Patches are cut to a scale: training at another would make a bundle that draws at a wrong one."""
    cut = config.validate(config.read_yaml(data / "settings.yaml"))
    for key in ("prepare.mpp", "mask_model.pixel_um", "mask_model.patch_pixels"):
        section, name = key.split(".")
        then, now = (getattr(getattr(tree, section), name) for tree in (cut, settings))
        if then != now:
            raise UserError(f"{data} was prepared with {key} {then}, training asks for {now}: prepare anew")
