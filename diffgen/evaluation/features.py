"""Features of regions, computed once: a pool of networks on Ray Data fills a Parquet file per chunk.

Invariants: a file is at its path only when it is whole, so a run that was interrupted resumes with the chunks
it lacks; and the folder's name is a digest of all that the numbers depend on, weights, pixels, regions and
what was done to them, so features of other data are never taken for these.
"""

import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from diffgen import progress
from diffgen.cluster import actor_runtime_env, connect, need
from diffgen.errors import UserError
from diffgen.evaluation import backbones
from diffgen.evaluation.backbones import Backbone
from diffgen.evaluation.images import RegionSet
from diffgen.files import atomic
from diffgen.labels import Picture

CHUNK = 256
"""Regions per file: what is lost of a run that is interrupted."""
BATCH = 16


@dataclass(frozen=True)
class View:
    """What is done to a region's pixels before the network sees them; the same for real and synthetic."""

    resize: int | None = None
    """Side in pixels that a region is brought to, by averages over areas: Table 5's "resized"."""
    jpeg: int | None = None
    """Quality of a JPEG (4:4:4) that every picture goes through."""

    def __call__(self, picture: Picture) -> Picture:
        image = Image.fromarray(picture)
        if self.resize is not None and self.resize != image.width:
            image = image.resize((self.resize, self.resize), Image.Resampling.BOX)
        if self.jpeg is not None:
            sink = io.BytesIO()
            image.save(sink, "JPEG", quality=self.jpeg, subsampling=0)
            image = Image.open(sink)
        return np.asarray(image)

    def __str__(self) -> str:
        resized = "" if self.resize is None else f"resized to {self.resize} px by areas, "
        coded = "as stored" if self.jpeg is None else f"through JPEG of quality {self.jpeg}, 4:4:4"
        return f"{resized}8-bit sRGB, {coded}"


class Features(NamedTuple):
    """Of the regions of some crops, in their order."""

    values: NDArray[np.float32]
    """(N, d)"""
    logits: NDArray[np.float32] | None
    """(N, classes), where the network has classes."""


@dataclass(frozen=True)
class FeatureJob:
    """Crops to compute features of, and where to keep them."""

    crops: RegionSet
    view: View
    backbone: str
    digest: str
    """Of the backbone."""
    cache: Path

    @cached_property
    def folder(self) -> Path:
        regions = json.dumps([list(vars(region).values()) for region in self.crops.regions])
        about = json.dumps([self.digest, self.crops.images.digest, asdict(self.view)])
        return self.cache / hashlib.sha256(f"{about}{regions}".encode()).hexdigest()[:24]

    @property
    def chunks(self) -> list[int]:
        return list(range(-(-len(self.crops) // CHUNK)))

    def path(self, chunk: int) -> Path:
        return self.folder / f"part-{chunk:05d}.parquet"

    def part(self, chunk: int) -> RegionSet:
        return RegionSet(self.crops.images, self.crops.regions[chunk * CHUNK : (chunk + 1) * CHUNK])

    @property
    def missing(self) -> list[int]:
        return [chunk for chunk in self.chunks if not self.path(chunk).exists()]


def compute(
    task: FeatureJob, chunk: int, backbone: Backbone, tell: Callable[[int], Any] = lambda _: None
) -> None:
    """Features of one chunk, to its file; `tell` hears of every batch how many regions it had."""
    crops = task.part(chunk)
    values, logits = list[NDArray[np.float32]](), list[NDArray[np.float32]]()
    for batch in _ahead(crops, task.view):
        found, classes = backbone(batch)
        bad = ~np.isfinite(found).all(axis=1)
        if bad.any():
            name = crops.regions[sum(len(one) for one in values) + int(bad.argmax())].image
            raise UserError(f"{task.backbone}: a feature of {crops.images.where}, {name} is NaN or infinite")
        values.append(found)
        if classes is not None:
            logits.append(classes)
        tell(len(batch))
    columns = {"features": _column(np.concatenate(values))}
    columns |= {"logits": _column(np.concatenate(logits))} if logits else {}
    columns |= {
        name: pa.array([getattr(region, name) for region in crops.regions])
        for name in ("image", "source", "y", "x", "side")
    }
    task.folder.mkdir(parents=True, exist_ok=True)
    with atomic(task.path(chunk)) as file:
        pq.write_table(pa.table(columns), file)


def _ahead(crops: RegionSet, view: View) -> Iterator[NDArray[np.uint8]]:
    """Batches of pictures, the next one read while the network is at work on one."""

    def read(start: int) -> NDArray[np.uint8]:
        regions = crops.regions[start : start + BATCH]
        return np.stack([view(crops.images.read(region)[0]) for region in regions])

    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(read, 0)
        for start in range(0, len(crops), BATCH):
            batch = following.result()
            if start + BATCH < len(crops):
                following = reader.submit(read, start + BATCH)
            yield batch


def _column(values: NDArray[np.float32]) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def load(task: FeatureJob) -> Features:
    """What was computed, in the order of the regions."""
    table = pa.concat_tables([pq.read_table(task.path(chunk)) for chunk in task.chunks])

    def array(name: str) -> NDArray[np.float32]:
        flat = table[name].combine_chunks().flatten().to_numpy()
        return np.asarray(flat, dtype=np.float32).reshape(table.num_rows, -1)

    return Features(array("features"), array("logits") if "logits" in table.column_names else None)


class FeatureActor:
    """An actor of the pool: a task's number and a chunk in, what failed out."""

    def __init__(
        self, tasks: Sequence[FeatureJob], backbone: str, threads: int, gpu: bool, tally: Any
    ) -> None:
        torch.set_num_threads(threads)
        self.tasks, self.tally = tasks, tally
        self.backbone = backbones.load(backbone, "cuda" if gpu else "cpu")

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            compute(self.tasks[row["task"]], row["chunk"], self.backbone, self.tally.add.remote)
        except UserError as error:
            return {"failure": str(error)}
        return {"failure": ""}


class RegionCounter:
    """An actor that counts regions, so that the driver can draw a bar."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, count: int) -> None:
        self.count += count

    def read(self) -> int:
        return self.count


def extract(
    tasks: Sequence[FeatureJob], threads: int, gpu: bool, inline: bool, console: Console
) -> list[Features]:
    """Features of all tasks of one backbone, those that are missing computed on Ray, or `inline`.

    Raises `UserError` for a picture that cannot be read and for a feature that is not finite; what is
    finished by then is kept.
    """
    rows = [(number, chunk) for number, task in enumerate(tasks) for chunk in task.missing]
    total = sum(len(tasks[number].part(chunk)) for number, chunk in rows)
    if rows:
        with progress.bar(console) as bar:
            shown = bar.add_task("features", total=total, figures="regions")
            if inline:
                torch.set_num_threads(threads)
                backbone = backbones.load(tasks[0].backbone, "cuda" if gpu else "cpu")
                for number, chunk in rows:
                    compute(tasks[number], chunk, backbone, lambda count: bar.advance(shown, count))
            else:
                _on_ray(tasks, rows, threads, gpu, lambda count: bar.update(shown, completed=count))
                bar.update(shown, completed=total)
    return [load(task) for task in tasks]


def _on_ray(
    tasks: Sequence[FeatureJob],
    rows: Sequence[tuple[int, int]],
    threads: int,
    gpu: bool,
    tell: Callable[[int], None],
) -> None:
    connect()
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # importing ray.data turns its reports on
    need(threads, 1 if gpu else 0, f"threads={threads}, gpu={gpu}")
    have = ray.cluster_resources()
    fitting = min(have.get("CPU", 0) // threads, have.get("GPU", 0) if gpu else len(rows))
    tally = ray.remote(num_cpus=0)(RegionCounter).remote()
    items = [{"task": number, "chunk": chunk} for number, chunk in rows]
    made = ray.data.from_items(items, override_num_blocks=len(items)).map(
        FeatureActor,
        compute=ray.data.ActorPoolStrategy(
            size=max(1, min(int(fitting), len(rows))), max_tasks_in_flight_per_actor=1
        ),
        fn_constructor_args=(list(tasks), tasks[0].backbone, threads, gpu, tally),
        num_cpus=threads,
        num_gpus=1 if gpu else None,
        runtime_env=actor_runtime_env(gpu),
    )
    for row in made.iter_rows():
        tell(ray.get(tally.read.remote()))
        if row["failure"]:
            raise UserError(row["failure"])
