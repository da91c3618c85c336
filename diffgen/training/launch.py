"""`diffgen train`: Algorithm 1 for both models on Ray Train, and the bundle that comes of it.

A run lives in one folder that all nodes see:
    run.yaml        what shapes its models; a start that would shape others is refused
    settings.yaml   all settings of the last start
    base/           autoencoder, schedule, labels: a bundle without U-Nets
    train/          checkpoints of both models (Ray Train)
    tensorboard/ samples/   what one looks at
    bundle/         the result
"""

import shutil
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console

from diffgen import config, progress
from diffgen.cluster import connect, need
from diffgen.data.stream import Patches, statistics
from diffgen.errors import UserError
from diffgen.models import autoencoder, bundle
from diffgen.models.unet import ImageUNet, MaskUNet
from diffgen.sampling.decode import from_picture
from diffgen.sampling.solvers import Solver, noise_schedule
from diffgen.training.card import model_card
from diffgen.training.loop import AVERAGED
from diffgen.training.worker import BOARD_INTERVAL_S, work

RUN = "run.yaml"
MEASURED_PATCHES = 256  # enough for the statistics of 48 numbers a block


class Board:
    """Where rank 0 writes how far it is and the driver reads it (a Ray actor at launch)."""

    def __init__(self) -> None:
        self.news: dict[str, Any] = {"step": 0, "start": None, "failure": None}

    def tell(self, **news: Any) -> None:
        self.news |= news

    def read(self) -> dict[str, Any]:
        return self.news


def launch(parts: Sequence[str], data: Path, run: Path, settings: config.Settings, console: Console) -> Path:
    """Train `parts` on prepared data and return the bundle's folder.

    Raises `UserError` where the data does not fit the settings, or the run was begun with others.
    """
    data, run = data.absolute(), run.absolute()  # workers have another working folder
    statistics(data)
    _check_scales(data, settings)
    shaping = _shaping(data, settings)
    _check_same(run, shaping)
    base = _base(data, run, settings, console)
    (run / RUN).write_text(yaml.safe_dump(shaping, sort_keys=False), encoding="utf-8")
    (run / "settings.yaml").write_text(settings.dump(), encoding="utf-8")
    connect()
    training = settings.training
    workers = f"training.workers={training.workers} with training.threads={training.threads}"
    need(training.workers * training.threads, training.workers if training.gpu else 0, workers)
    for part in parts:
        _fit(part, data, run, settings, console)
    folder = run / "bundle"
    base.image_unet = _trained(ImageUNet, folder / "image_unet")
    base.mask_unet = _trained(MaskUNet, folder / "mask_unet")
    bundle.save(base, folder, settings, model_card(base, settings, statistics(data)))
    return folder


def _trained(make: Any, folder: Path) -> Any:
    """A U-Net that this run has trained, now or before."""
    return make.from_pretrained(folder, low_cpu_mem_usage=False) if folder.exists() else None


def _shaping(data: Path, settings: config.Settings) -> dict[str, Any]:
    """The settings that shape the models: those that say how often to look or save do not."""
    tree = settings.model_dump(mode="json")
    sections = ("seed", "prepare", "autoencoder", "image_model", "mask_model", "diffusion")
    looks = {"checkpoint_every", "sample_every"}
    parts = {
        name: {key: value for key, value in tree["training"][name].items() if key not in looks}
        for name in ("image", "mask")
    }
    return {"data": str(data), **{key: tree[key] for key in sections}, "training": parts}


def _check_same(run: Path, shaping: dict[str, Any]) -> None:
    """A run is gone on with only by settings that shape the same models."""
    if (run / RUN).exists():
        changed = config.differences(config.read_yaml(run / RUN), shaping)
        if changed:
            what = ", ".join(changed[:3])
            raise UserError(f"run {run} was begun with other settings: {what}; choose another --run")


def _check_scales(data: Path, settings: config.Settings) -> None:
    """Patches are cut to a scale: training at another would make a bundle that draws at a wrong one."""
    cut = config.validate(config.read_yaml(data / "settings.yaml"))
    for key in ("prepare.mpp", "mask_model.pixel_um", "mask_model.patch"):
        section, name = key.split(".")
        then, now = (getattr(getattr(tree, section), name) for tree in (cut, settings))
        if then != now:
            raise UserError(f"{data} was prepared with {key} {then}, training asks for {now}: prepare anew")


def _base(data: Path, run: Path, settings: config.Settings, console: Console) -> bundle.Bundle:
    """The bundle without U-Nets: the autoencoder, fitted or loaded, and measured on the data."""
    folder = run / "base"
    if not (folder / bundle.INDEX).exists():
        patches = Patches(data, "image")
        if not len(patches):
            raise UserError(f"{data} holds no image patches to train on")
        _check_sides(patches, settings)
        numbers = np.unique(np.linspace(0, len(patches) - 1, MEASURED_PATCHES).astype(int))
        images = [torch.from_numpy(from_picture(patches.picture(int(n))))[None] for n in numbers]
        images = [image[..., : settings.image_patch_px, : settings.image_patch_px] for image in images]
        batches = [torch.cat(images[i : i + 16]) for i in range(0, len(images), 16)]
        codec = autoencoder.build(settings.autoencoder, batches)
        quality = autoencoder.psnr(batches[0], codec.decode(codec.encode(batches[0])).clamp(-1, 1))
        made = f"{settings.autoencoder.kind}, {codec.factor}× with {codec.channels} channels"
        console.print(f"autoencoder: {made}, {quality:.1f} dB PSNR")
        diffusion = settings.diffusion
        schedule = noise_schedule(diffusion.steps, diffusion.schedule, diffusion.prediction)
        for steps in (settings.sampling.steps_for(1), settings.sampling.mask_steps):
            Solver(settings.sampling.solver, dict(schedule.config), steps)  # says what cannot be sampled
        base = bundle.Bundle(bundle.facts_of(settings, codec), patches.labels, dict(schedule.config), codec)
        bundle.save(
            base, folder, settings, "Autoencoder, schedule and labels of a run: a bundle without U-Nets.\n"
        )
    return bundle.load(folder)


def _check_sides(patches: Patches, settings: config.Settings) -> None:
    smallest = min(min(row["height"], row["width"]) for row in patches.rows)
    if smallest < settings.image_patch_px:
        raise UserError(
            f"{patches.folder} holds patches of {smallest} pixels; "
            f"image_model.patch × autoencoder.factor needs {settings.image_patch_px}"
        )


def _fit(part: str, data: Path, run: Path, settings: config.Settings, console: Console) -> None:
    """Train one model on Ray Train and put its averaged weights into the bundle's folder."""
    import ray
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    training, steps = settings.training, getattr(settings.training, part).steps
    board = ray.remote(num_cpus=0)(Board).remote()
    tree = settings.model_dump(mode="json")
    resources = {"CPU": training.threads} | ({"GPU": 1} if training.gpu else {})
    trainer = TorchTrainer(
        work,
        train_loop_config={
            "part": part,
            "data": str(data),
            "run": str(run),
            "settings": tree,
            "board": board,
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=training.workers, use_gpu=training.gpu, resources_per_worker=resources
        ),
        torch_config=TorchConfig(backend="nccl" if training.gpu else "gloo"),
        run_config=ray.train.RunConfig(
            name=part,
            storage_path=str((run / "train").absolute()),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=training.keep_checkpoints),
            failure_config=ray.train.FailureConfig(max_failures=training.max_failures),
        ),
    )
    done, handler = threading.Event(), signal.getsignal(signal.SIGINT)
    with progress.bar(console) as bar:
        watcher = threading.Thread(target=_watch, args=(board, bar, part, steps, done), daemon=True)
        watcher.start()
        try:
            result = trainer.fit()
        except SystemExit as stopped:  # what Ray Train makes of Ctrl-C
            raise KeyboardInterrupt from stopped
        except ray.train.TrainingFailedError as error:
            cause = str(error).strip().splitlines()[-1]
            raise UserError(
                f"training of the {part} model failed: {cause}; the same command goes on"
            ) from error
        finally:
            signal.signal(signal.SIGINT, handler)  # Ray Train leaves its own behind
            done.set()
            watcher.join()
    news = ray.get(board.read.remote())
    if news["failure"]:
        raise UserError(news["failure"])
    with result.checkpoint.as_directory() as checkpoint:
        target = run / "bundle" / f"{part}_unet"
        shutil.copytree(Path(checkpoint) / AVERAGED, target, dirs_exist_ok=True)


def _watch(board: Any, bar: Any, part: str, steps: int, done: threading.Event) -> None:
    """Draw the bar in the driver from what rank 0 tells the board."""
    import ray

    task = bar.add_task(f"train {part}", total=steps, figures="starting workers")
    said = None
    while True:
        last = done.is_set()
        news = ray.get(board.read.remote())
        if news["start"] != said:
            said = news["start"]
            bar.console.print(said)
        if "loss" in news:
            bar.update(
                task,
                completed=news["step"],
                figures=f"loss {news['loss']:.4f}  {news['images_per_s']:.0f} images/s",
            )
        if last:
            return
        done.wait(BOARD_INTERVAL_S)
