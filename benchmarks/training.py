"""How fast is `diffgen train`, against the shortest honest loop?

    python benchmarks/training.py DATA [--only train encode] [--workers 1 2] [--json FILE] [--quick]

DATA: a folder made by `diffgen prepare`; its settings give the model (the preset `nuclei`, or `make demo`'s).

train    steps a second of `diffgen train image` on its Ray workers ÷ those of a loop that has nothing but
         what learning takes: all latents in memory, random crops and time steps, forward, backward, clip,
         AdamW, OneCycle, average of the weights. Same U-Net, batch, crops of one size, precision and
         threads; two workers against two processes of DDP (gloo). Loop and command by turns (B A B A B …),
         each ratio against the loops before and after, median. The command's rate is that of its log's
         wall times, from its third entry to its last: logging counts, start and checkpoints do not.
         Goal: 0.95. `wait`: share of the time that a worker waits for data; goal: below 5 %.
encode   images a second of `diffgen encode`, from the autoencoder's start to the last shard, ÷ those of the
         bare autoencoder on pictures in memory, by turns as above. The autoencoder is Stable Diffusion's at
         a quarter of its width, with random weights; the linear one is so cheap that PNG sets its pace, and
         is told beside it. Goal: 0.9.

All cores are used: `cores ÷ workers` threads each. About half an hour on two cores; --quick is a test.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from rich.console import Console
from rich.table import Table

from benchmarks.bare_loop import bare_encoder, loop_rate, stored
from diffgen import config
from diffgen.data.stream import Patches
from diffgen.models import autoencoder
from diffgen.sampling.decode import from_picture

CORES = len(os.sched_getaffinity(0))
WIDTHS = (32, 64, 128, 128)  # of the autoencoder: Stable Diffusion's are four times these
SKIPPED = 2  # entries of the log before the pace is steady


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    seconds: float = 60.0
    """Of a run of the command; a loop takes a third."""
    repeats: int = 3
    log_every: int = 5


QUICK = Effort(seconds=1, repeats=1, log_every=1)


@dataclass(frozen=True)
class Bench:
    """Prepared data, and settings under which crops are of one size and latents are stored."""

    data: Path
    work: Path
    tree: tuple[str, ...] = ("image_model.context=fixed", "autoencoder.latents=stored")

    def settings(self, workers: int, *more: str) -> tuple[config.Settings, list[str]]:
        """Settings of a run, and what the command is told to have them."""
        told = [
            *self.tree, f"training.workers={workers}", f"training.threads={max(1, CORES // workers)}",
            "training.gpu=false", f"places.runs={self.work}", *more,
        ]  # fmt: skip
        return config.load(None, told, config.read_yaml(self.data / "settings.yaml")), told

    def command(self, name: str, run: str, told: Sequence[str]) -> None:
        line = [sys.executable, "-m", "diffgen.cli", *name.split(), "--data", str(self.data), "--run", run]
        line += [word for setting in told for word in ("--set", setting)]
        done = subprocess.run(line, capture_output=True, text=True, cwd=self.work)
        if done.returncode:
            raise SystemExit(f"{' '.join(line)}: {done.stderr.strip() or done.stdout.strip()}")


def by_turns(command: Callable[[int], float], bare: Callable[[], float], repeats: int) -> dict[str, Any]:
    """B A B A … B: the ratio of each run to the bare ones around it, and their median."""
    around, runs = [bare()], []
    for k in range(repeats):
        runs.append(command(k))
        around.append(bare())
    ratios = [run / statistics.mean(around[k : k + 2]) for k, run in enumerate(runs)]
    return {"ratio": statistics.median(ratios), "ratios": ratios, "command": runs, "bare": around}


# Training


def train(bench: Bench, workers: int, effort: Effort) -> dict[str, Any]:
    """Steps a second of the command and of the loop, and the command's share of waiting for data."""
    settings, told = bench.settings(workers)
    stock = stored(bench.data, settings)
    rate = loop_rate(settings, stock, workers, 4)
    steps = max((SKIPPED + 2) * effort.log_every, round(effort.seconds * rate))
    waits: list[float] = []

    def command(k: int) -> float:
        run = f"train-{workers}-{k}"
        every = [f"training.image.{key}={steps}" for key in ("steps", "checkpoint_every", "sample_every")]
        bench.command("train image", run, [*told, *every, f"training.log_every={effort.log_every}"])
        rate, wait = steady(bench.work / run / "tensorboard/image")
        waits.append(wait)
        return rate

    found = by_turns(command, lambda: loop_rate(settings, stock, workers, max(2, steps // 3)), effort.repeats)
    return {**found, "data_wait_share": statistics.median(waits), "steps": steps}


def steady(folder: Path) -> tuple[float, float]:
    """Steps a second by wall times of a run's log, and the mean share of waiting, once the pace is steady."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    log.Reload()
    losses = log.Scalars("train/loss")[SKIPPED:]
    waits = [entry.value for entry in log.Scalars("train/data_wait_share")[SKIPPED + 1 :]]
    first, last = losses[0], losses[-1]
    return (last.step - first.step) / (last.wall_time - first.wall_time), statistics.fmean(waits)


# Encoding


def encode(bench: Bench, kind: str, effort: Effort) -> dict[str, Any]:
    """Images a second of `diffgen encode` and of the bare autoencoder."""
    more = ["autoencoder.dihedral=1"]
    if kind == "kl":
        source = bench.work / "autoencoder"
        quarter_of_stable_diffusion().save_pretrained(source)
        more += ["autoencoder.kind=kl", f"autoencoder.source={source}", "autoencoder.factor=8"]
        more += ["autoencoder.channels=4", f"image_model.patch={bench.settings(1)[0].image_model.patch // 2}"]
        more += [f"image_model.attention=[{bench.settings(1)[0].image_model.patch // 4}]"]
    settings, told = bench.settings(1, *more)
    patches = Patches(bench.data, "image")
    images = torch.from_numpy(
        np.stack([from_picture(patches.picture(n)) for n in range(min(64, len(patches)))])
    )
    codec = autoencoder.build(settings.autoencoder, [images[:16]])

    def command(k: int) -> float:
        with tempfile.TemporaryDirectory() as folder:  # data without latents, each time
            for path in bench.data.absolute().iterdir():
                if path.name != "latents":
                    (Path(folder) / path.name).symlink_to(path)
            Bench(Path(folder), bench.work).command("encode", f"encode-{kind}-{k}", told)
            (made,) = Path(folder).glob("latents/*/latents.json")
            return float(json.loads(made.read_text())["images_per_s"])

    seconds = effort.seconds / 3
    return by_turns(
        command, lambda: bare_encoder(codec, images, settings.training.threads, seconds), effort.repeats
    )


def quarter_of_stable_diffusion() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(WIDTHS),
        up_block_types=("UpDecoderBlock2D",) * len(WIDTHS),
        block_out_channels=WIDTHS, layers_per_block=2, latent_channels=4,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=["train", "encode"], default=["train", "encode"])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="two minutes, with numbers that mean nothing")
    given = parser.parse_args(arguments)
    effort = QUICK if given.quick else Effort()
    effort = Effort(given.seconds or effort.seconds, given.repeats or effort.repeats, effort.log_every)
    console, found = Console(), dict[str, Any]()
    console.width = max(console.width, 140)  # a table is not cut where it is written to a file
    table = Table("", "command", "bare", "ratio", "ratios", "wait")

    def add(name: str, unit: str, made: dict[str, Any]) -> None:
        rates = [f"{statistics.median(made[key]):.3g} {unit}" for key in ("command", "bare")]
        ratios = " ".join(f"{ratio:.3f}" for ratio in made["ratios"])
        wait = f"{made['data_wait_share']:.1%}" if "data_wait_share" in made else ""
        table.add_row(name, *rates, f"{made['ratio']:.3f}", ratios, wait)

    with tempfile.TemporaryDirectory() as folder, console.status(""):
        bench = Bench(given.data.absolute(), Path(folder))
        if "train" in given.only:
            made = {str(workers): train(bench, workers, effort) for workers in given.workers}
            for workers, row in made.items():
                add(f"train, {workers} worker(s), {max(1, CORES // int(workers))} thread(s)", "steps/s", row)
            found["efficiency"] = {workers: row["ratio"] for workers, row in made.items()}
            found["data_wait_share"] = max(row["data_wait_share"] for row in made.values())
            found["train"] = made
        if "encode" in given.only:
            made = {kind: encode(bench, kind, effort) for kind in ("kl", "linear")}
            for kind, row in made.items():
                add(f"encode, {kind}", "images/s", row)
            found |= {"encode_efficiency": made["kl"]["ratio"], "encode": made}
    console.print(table)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
