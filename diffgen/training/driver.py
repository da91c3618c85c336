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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from diffgen import config
from diffgen.cluster import connect, need, on_gpus
from diffgen.data.remote import local, place_of
from diffgen.data.stream import statistics
from diffgen.errors import UserError
from diffgen.lock import held
from diffgen.models import bundle
from diffgen.models.bundle import ModelName
from diffgen.models.unet import ImageUNet, MaskUNet
from diffgen.storage import Folder, fetched
from diffgen.training import checkpoints
from diffgen.training.autoencoder import new_autoencoder
from diffgen.training.card import model_card
from diffgen.training.driver_base import AUTOENCODER, RUN, Driver, InitBundle, build_base, needs_autoencoder
from diffgen.training.driver_fit import fit_inline, fit_on_ray
from diffgen.training.init_weights import init_from
from diffgen.training.latents import encode
from diffgen.training.mask_source import NO_LABEL_MAPS
from diffgen.training.worker import START
from diffgen.urls import is_url

RATES = ("lr", "clip")
AUTOENCODER_MADE_BY = "autoencoder.yaml"
PATIENCE_S = 120.0  # NFS takes a minute and a half to see that the machine which held a lock is gone


@contextmanager
def _driver(
    data: Path | str, run: str, settings: config.Settings, console: Console, inline: bool
) -> Iterator[Driver]:
    """`UserError` where the data does not fit the settings, or another command works on the run."""
    place, folder = place_of(data), Folder(run)  # workers have another working folder
    statistics(data := local(place))
    _check_scales(data, settings)
    settings = settings.on(on_gpus(settings.gpu, inline))
    say = partial(console.print, highlight=False, soft_wrap=True)
    with held(folder, "--run", PATIENCE_S, say), tempfile.TemporaryDirectory() as scratch:
        yield Driver(data, place, folder, settings, console, inline, Path(scratch))


def _check_latents(data: Path | str, inline: bool) -> None:
    """`UserError` where latents cannot be stored beside the data: of a URL each node has its own copy."""
    if is_url(data) and not inline:
        remedy = "copy the data to one, or use --inline, or train with autoencoder.latents=live"
        raise UserError(f"{data}: stored latents need a folder that all nodes see, no URL: {remedy}")


def _check_patches(data: Path | str, parts: Sequence[ModelName]) -> None:
    """`UserError` where there is nothing to train a model on: before its autoencoder is."""
    patches = statistics(local(data))["patches"]
    if "mask" in parts and not patches["mask"]["train"]:
        raise UserError(NO_LABEL_MAPS.format(data))
    if "image" in parts and not patches["image"]["train"]:
        raise UserError(
            f"{data} holds no image patches to train on (diffgen train mask trains the other model)"
        )


def launch(
    parts: Sequence[ModelName],
    data: Path | str,
    run: str,
    settings: config.Settings,
    console: Console,
    start: str | None = None,
    inline: bool = False,
) -> str:
    """Train `parts` on prepared data and return where the bundle is, a folder or a URL.

    `data` and `run` are folders or URLs; with a bundle `start`, too, a new run begins with its weights,
    autoencoder and schedule. `inline`: in this process, without Ray. Raises `UserError` where the data does
    not fit the settings, the run was begun with others, or another command works on it.
    """
    if settings.autoencoder.latents == "stored" and "image" in parts:
        _check_latents(data, inline)
    _check_patches(data, parts)
    for part in parts:
        if start is None and getattr(settings.training, part).discriminative:
            raise UserError(
                f"training.{part}.discriminative fine-tunes a network: say which by --init-from BUNDLE"
            )
    with _driver(data, run, settings, console, inline) as driver:
        folder, settings = driver.run, driver.settings
        shaping = _shaping(driver.place, settings, start)
        _check_same(folder, shaping)
        _say_rates(folder, settings, console)
        begin = InitBundle(start, fetched(start, driver.scratch / START)) if start else None
        if not begin and needs_autoencoder(settings, folder):
            _fit_autoencoder(driver)
        base = build_base(driver, parts, shaping, begin)
        if begin and not folder.exists(RUN):
            _say_start(parts, begin, base, settings, console)
            folder.push(begin.folder, START)
        folder.write_text(RUN, yaml.safe_dump(shaping, sort_keys=False))
        folder.write_text("settings.yaml", settings.dump())
        if not inline:
            _need_workers(settings.training)
        latents = None
        if settings.autoencoder.latents == "stored" and "image" in parts:
            encoder = folder.pull("base", driver.scratch / "encoder")
            latents = str(encode(driver.data, encoder, settings, console, inline))
        fit = fit_inline if inline else fit_on_ray
        for part in parts:
            fit(driver.task(part, latents=latents, init_from=start), settings.training, console)
            driver.keep(part, f"bundle/{part}_unet")
        return _finish(driver, base)


def launch_autoencoder(
    data: Path | str, run: str, settings: config.Settings, console: Console, inline: bool = False
) -> str:
    """`diffgen train autoencoder`: train it on prepared data and return where it is, a folder or a URL.

    A run that uses its autoencoder already keeps it: `UserError`.
    """
    with _driver(data, run, settings, console, inline) as driver:
        if driver.run.exists(RUN):
            raise UserError(f"run {driver.run} has models that know its autoencoder; choose another --run")
        _fit_autoencoder(driver)
    return f"{driver.run.local or driver.run}/{AUTOENCODER}"


def prepare_latents(
    data: Path | str,
    run: str,
    settings: config.Settings,
    console: Console,
    start: str | None = None,
    inline: bool = False,
) -> Path:
    """`diffgen encode`: the run's autoencoder, or that of the bundle `start`, and all latents by it."""
    _check_latents(data, inline)
    with _driver(data, run, settings, console, inline) as driver:
        begin = InitBundle(start, fetched(start, driver.scratch / START)) if start else None
        build_base(driver, ["image"], _shaping(driver.place, settings, start), begin)
        base = driver.run.pull("base", driver.scratch / "base")
        return encode(driver.data, base, driver.settings, console, inline)


def _fit_autoencoder(driver: Driver) -> None:
    settings, run = driver.settings, driver.run
    new_autoencoder(settings)  # says here what does not fit
    if not driver.inline:
        _need_workers(settings.training)
    tree = settings.model_dump(mode="json")
    shape = {key: tree[key] for key in ("seed", "autoencoder")} | {"training": tree["training"][AUTOENCODER]}
    _check_same(run, shape, AUTOENCODER_MADE_BY)
    run.write_text(AUTOENCODER_MADE_BY, yaml.safe_dump(shape, sort_keys=False))
    fit = fit_inline if driver.inline else fit_on_ray
    fit(driver.task(AUTOENCODER), settings.training, driver.console)
    driver.keep(AUTOENCODER, AUTOENCODER)


def _need_workers(training: config.Training) -> None:
    connect()
    least = training.worker_range[0]
    workers = f"training.workers={least} with threads={training.threads}"
    need(least * training.threads, least if training.gpu else 0, workers)


def _finish(driver: Driver, base: bundle.Bundle) -> str:
    """The bundle of all that this run has trained, now or before."""
    run, settings, scratch = driver.run, driver.settings, driver.scratch
    for make, name in ((ImageUNet, "image_unet"), (MaskUNet, "mask_unet")):
        if run.exists(f"bundle/{name}/config.json"):
            folder = run.pull(f"bundle/{name}", scratch / name)
            setattr(base, name, make.from_pretrained(folder, low_cpu_mem_usage=False))
    if (share := settings.training.image.guide_at) is not None and base.image_unet is not None:
        base.image_guide = _guide(run, share, scratch)
    built = scratch / "bundle"
    bundle.save(base, built, settings, model_card(base, settings, statistics(driver.data)))
    run.push(built, "bundle")
    return f"{run.local or run.url}/bundle"


def _guide(run: Folder, share: float, scratch: Path) -> ImageUNet | None:
    """The averaged image U-Net of the checkpoint nearest to a share of the steps taken, which time may have
    ended; None where there is no checkpoint before the last: the last guides itself nowhere."""
    folders = {Path(name).parts[0] for name in run.tree("history/image")}
    kept = sorted(int(name.removeprefix("step-")) for name in folders if name.startswith("step-"))
    if len(kept) < 2:
        return None
    *earlier, last = kept
    nearest = min(earlier, key=lambda step: abs(step - share * last))
    folder = run.pull(f"history/image/{checkpoints.name_of(nearest)}", scratch / "guide")
    guide: ImageUNet = ImageUNet.from_pretrained(folder, low_cpu_mem_usage=False)
    return guide


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


def _shaping(data: str, settings: config.Settings, start: str | None) -> dict[str, Any]:
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
    return {"data": data, **{key: tree[key] for key in sections}, "training": parts, **begun}


def _check_same(run: Folder, shaping: dict[str, Any], name: str = RUN) -> None:
    """A run resumes only with settings that shape the same models."""
    if (text := run.read_text(name)) is not None:
        changed = config.differences(config.current(yaml.safe_load(text)), shaping)
        if changed:
            what = ", ".join(changed[:3])
            raise UserError(f"run {run.url} was begun with other settings: {what}; choose another --run")


def _say_rates(run: Folder, settings: config.Settings, console: Console) -> None:
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
