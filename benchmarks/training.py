"""How fast is `diffgen train`, against the shortest honest loop?

    python benchmarks/training.py DATA [--only train encode] [--json FILE] [--quick]

DATA: a folder made by `diffgen prepare`; its settings give the model (the preset `nuclei`, or `make demo`'s).

train    steps per second of `diffgen train image` on its Ray workers ÷ those of a loop that has nothing but
         what learning takes: all latents in memory, random crops and time steps, forward, backward, clip,
         AdamW, OneCycle, average of the weights. Same U-Net, batch, crops of one size, precision and
         threads and settings of malloc; two workers against two processes of DDP (gloo). Both run all the
         while and take turns of half a minute (turns.py), each ratio against the loop's turns before and
         after, median. The command logs every fourth step; its start does not count, nor do checkpoints.
         Goal: 0.95 with a thread a worker. One worker with all cores is told beside it: no core is left
         for Ray's own dozen processes, which take an eighth of one, and all threads wait for the last.
         `wait`: share of the time that a worker waits for data; goal: below 5 %.
encode   images per second of `diffgen encode`, from the autoencoder's start to the last shard, ÷ those of the
         bare autoencoder on pictures in memory before and after it, median of three; a process of one
         thread a core on both sides, so DATA wants many shards (`prepare.patches_per_shard`). The
         autoencoder is Stable Diffusion's at a quarter of its width, with random weights; the linear one is
         so cheap that PNG sets its pace, and is told beside it. Goal: 0.9.

About forty minutes on two cores; --quick is a test.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from rich.console import Console
from rich.table import Table

from benchmarks.bare_loop import encoder_rate, looping, stored
from benchmarks.turns import paused, rate, ratios, take_turns, tell
from diffgen import config
from diffgen.data.stream import PatchTable
from diffgen.models import autoencoder
from diffgen.sampling.decode import from_picture

CORES = len(os.sched_getaffinity(0))
WIDTHS = (32, 64, 128, 128)  # of the autoencoder: Stable Diffusion's are four times these
LOG_EVERY = 4  # steps; the preset's 50 would leave no entry in a turn
START = 2  # entries of the log before the pace is steady


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    seconds: float = 25.0
    """Of a turn."""
    turns: int = 8
    """Of `diffgen train`; of `diffgen encode`, each of which is a whole run, three."""


QUICK = Effort(seconds=4, turns=1)


@dataclass(frozen=True)
class Bench:
    """Prepared data, and settings under which crops are of one size and latents are stored."""

    data: Path
    work: Path
    tree: tuple[str, ...] = ("image_model.context=fixed", "autoencoder.latents=stored")

    def settings(self, workers: int, threads: int, *more: str) -> tuple[config.Settings, list[str]]:
        """Settings of a run, and what the command is told to have them."""
        told = [
            *self.tree, f"training.workers={workers}", f"threads={threads}",
            "gpu=false", f"places.runs={self.work}", *more,
        ]  # fmt: skip
        return config.load(None, told, config.read_yaml(self.data / "settings.yaml")).on(gpu=False), told

    def line(self, name: str, run: str, told: Sequence[str]) -> list[str]:
        """A command on the data, with these settings."""
        line = [sys.executable, "-m", "diffgen", *name.split(), "--data", str(self.data), "--run", run]
        return line + [word for setting in told for word in ("--set", setting)]

    def command(self, name: str, run: str, told: Sequence[str]) -> None:
        line = self.line(name, run, told)
        done = subprocess.run(line, capture_output=True, text=True, cwd=self.work)
        if done.returncode:
            raise SystemExit(f"{' '.join(line)}: {done.stderr.strip() or done.stdout.strip()}")


# Training


def train(bench: Bench, workers: int, threads: int, effort: Effort) -> dict[str, Any]:
    """Steps per second of the command and of the loop, and the command's share of waiting for data."""
    endless = [f"training.image.{key}=1000000" for key in ("steps", "checkpoint_every", "sample_every")]
    settings, told = bench.settings(workers, threads, f"training.log_every={LOG_EVERY}", *endless)
    run = bench.work / f"train-{workers}-{threads}"
    times = run.with_suffix(".times")
    line = bench.line("train image", run.name, told)
    with (
        looping(settings, stored(bench.data, settings), workers, times) as bare,
        paused(bare),  # Ray's workers yield to all else: beside the loop the command would hardly start
        running(line, bench.work, run / "tensorboard/image") as command,
    ):
        tell(bare, signal.SIGCONT)
        windows = take_turns((bare, command), effort.seconds, effort.turns)
        with paused(bare):
            while (logged := log(run / "tensorboard/image"))["train/loss"][-1].wall_time < windows[1][-1][1]:
                time.sleep(1)  # what it has logged is not on the disk at once
    ends = [entry.wall_time for entry in logged["train/loss"]]
    found = ratios(
        [rate([float(end) for end in times.read_text().split()], window) for window in windows[0]],
        [rate(ends, window, LOG_EVERY) for window in windows[1]],
    )
    waits = [entry.value for entry in logged["train/data_wait_share"]]
    return {**found, "data_wait_share": statistics.fmean(waits[START:])}


@contextmanager
def running(line: Sequence[str], work: Path, folder: Path) -> Iterator[list[int]]:
    """The pid of a training that has begun, as its log says; killed at the end."""
    process = subprocess.Popen(line, cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        while not folder.exists() or len(log(folder).get("train/loss", [])) < START:
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(line)}: {process.communicate()[1].strip()}")
            time.sleep(1)
        yield [process.pid]
    finally:
        tell([process.pid], signal.SIGKILL)  # all of it: what is measured has been logged
        process.wait()


def log(folder: Path) -> dict[str, list[Any]]:
    """All scalars of a TensorBoard log."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    read.Reload()
    return {tag: read.Scalars(tag) for tag in read.Tags()["scalars"]}


# Encoding


def encode(bench: Bench, kind: str, effort: Effort) -> dict[str, Any]:
    """Images a second of `diffgen encode` and of the bare autoencoder."""
    more = ["autoencoder.dihedral=1"]
    if kind == "kl":
        source = bench.work / "autoencoder"
        quarter_of_stable_diffusion().save_pretrained(source)
        more += ["autoencoder.kind=kl", f"autoencoder.source={source}", "autoencoder.factor=8"]
        side = bench.settings(1, 1)[0].image_model.patch // 2
        more += [
            "autoencoder.channels=4",
            f"image_model.patch={side}",
            f"image_model.attention=[{side // 2}]",
        ]
    settings, told = bench.settings(1, 1, *more)
    patches = PatchTable(bench.data, "image")
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

    runs, bare = [], [encoder_rate(codec, images, CORES, effort.seconds)]
    for k in range(min(3, effort.turns)):
        runs.append(command(k))
        bare.append(encoder_rate(codec, images, CORES, effort.seconds))
    return ratios(bare, runs)


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
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2], help="a thread each")
    parser.add_argument("--turns", type=int)
    parser.add_argument("--seconds", type=float, help="of a turn")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="two minutes, with numbers that mean nothing")
    given = parser.parse_args(arguments)
    effort = QUICK if given.quick else Effort()
    effort = Effort(given.seconds or effort.seconds, given.turns or effort.turns)
    console, found = Console(), dict[str, Any]()
    console.width = max(console.width, 140)  # a table is not cut where it is written to a file
    table = Table("", "command", "bare", "ratio", "ratios", "wait")

    def add(name: str, unit: str, made: dict[str, Any]) -> None:
        rates = [f"{statistics.median(made[key]):.3g} {unit}" for key in ("command", "bare")]
        each = " ".join(f"{ratio:.2f}" for ratio in made["ratios"])
        wait = f"{made['data_wait_share']:.1%}" if "data_wait_share" in made else ""
        table.add_row(name, *rates, f"{made['ratio']:.3f}", each, wait)

    with tempfile.TemporaryDirectory() as folder, console.status(""):
        bench = Bench(given.data.absolute(), Path(folder))
        if "train" in given.only:
            made = {str(workers): train(bench, workers, 1, effort) for workers in given.workers}
            found["efficiency"] = {workers: row["ratio"] for workers, row in made.items()}
            found["data_wait_share"] = max(row["data_wait_share"] for row in made.values())
            if CORES > 1 and 1 in given.workers:
                made["1, all cores"] = train(bench, 1, CORES, effort)
                found["efficiency_all_cores"] = made["1, all cores"]["ratio"]
            found["train"] = made
            for workers, row in made.items():
                add(f"train, workers: {workers}", "steps/s", row)
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
