"""Features of regions, computed once: a task and a Parquet file per chunk of regions.

Invariants: a file is at its path only when it is whole, so a run that was interrupted resumes with the chunks
it lacks; and the folder's name is a digest of all that the numbers depend on, weights, pixels, regions and
what was done to them, so features of other data are never taken for these.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from diffgen.errors import UserError
from diffgen.evaluation.backbones import Backbone
from diffgen.evaluation.images import RegionSet
from diffgen.evaluation.tasks import Workers
from diffgen.labels import Picture
from diffgen.storage import atomic

CHUNK = 256
"""Regions per file: what is lost of a run that is interrupted."""
BATCH = 16
"""Pictures that a network is given at once, always (the last batch is filled up): with fewer it may sum in
another order, and the features of a picture would depend on where it stands."""


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
    backbone: Backbone
    cache: Path
    chunk: int = CHUNK

    @cached_property
    def folder(self) -> Path:
        regions = json.dumps([list(vars(region).values()) for region in self.crops.regions])
        about = json.dumps([self.backbone.digest, BATCH, self.crops.images.digest, asdict(self.view)])
        return self.cache / hashlib.sha256(f"{about}{regions}".encode()).hexdigest()[:24]

    @property
    def chunks(self) -> list[int]:
        return list(range(-(-len(self.crops) // self.chunk)))

    def path(self, chunk: int) -> Path:
        return self.folder / f"part-{chunk:05d}.parquet"

    def part(self, chunk: int) -> RegionSet:
        start = chunk * self.chunk
        return RegionSet(self.crops.images, self.crops.regions[start : start + self.chunk])

    @property
    def missing(self) -> list[int]:
        return [chunk for chunk in self.chunks if not self.path(chunk).exists()]


def compute(job: FeatureJob, chunk: int, device: str = "cpu") -> None:
    """Features of one chunk, to its file."""
    crops = job.part(chunk)
    values, logits = list[NDArray[np.float32]](), list[NDArray[np.float32]]()
    for batch in _ahead(crops, job.view):
        found, classes = job.backbone(batch, device)
        rest = len(crops) - sum(map(len, values))
        found, classes = found[:rest], None if classes is None else classes[:rest]
        bad = ~np.isfinite(found).all(axis=1)
        if bad.any():
            where = f"{crops.images.where}, {crops.regions[sum(map(len, values)) + int(bad.argmax())].image}"
            raise UserError(f"{job.backbone.name}: a feature of {where} is NaN or infinite")
        values.append(found)
        if classes is not None:
            logits.append(classes)
    columns = {"features": _column(np.concatenate(values))}
    columns |= {"logits": _column(np.concatenate(logits))} if logits else {}
    columns |= {
        name: pa.array([getattr(region, name) for region in crops.regions])
        for name in ("image", "source", "y", "x", "side")
    }
    job.folder.mkdir(parents=True, exist_ok=True)
    with atomic(job.path(chunk)) as file:
        pq.write_table(pa.table(columns), file)


def _ahead(crops: RegionSet, view: View) -> Iterator[NDArray[np.uint8]]:
    """Batches of BATCH pictures, the last filled up with its last one.

    The next one is read while the network is at work on one.
    """

    def read(start: int) -> NDArray[np.uint8]:
        regions = crops.regions[start : start + BATCH]
        found = [view(crops.images.read(region)[0]) for region in regions]
        return np.stack([*found, *[found[-1]] * (BATCH - len(found))])

    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(read, 0)
        for start in range(0, len(crops), BATCH):
            batch = following.result()
            if start + BATCH < len(crops):
                following = reader.submit(read, start + BATCH)
            yield batch


def _column(values: NDArray[np.float32]) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def load(job: FeatureJob) -> Features:
    """What was computed, in the order of the regions."""
    table = pa.concat_tables([pq.read_table(job.path(chunk)) for chunk in job.chunks])

    def array(name: str) -> NDArray[np.float32]:
        flat = table[name].combine_chunks().flatten().to_numpy()
        return np.asarray(flat, dtype=np.float32).reshape(table.num_rows, -1)

    return Features(array("features"), array("logits") if "logits" in table.column_names else None)


def extract(jobs: Sequence[FeatureJob], workers: Workers) -> list[Features]:
    """Features of all jobs; those that are missing are computed.

    Raises `UserError` for a picture that cannot be read and for a feature that is not finite; what is
    finished by then is kept.
    """
    missing = list({job.path(chunk): (job, chunk) for job in jobs for chunk in job.missing}.values())
    workers.run(compute, missing, [len(job.part(chunk)) for job, chunk in missing], "features", "regions")
    return [load(job) for job in jobs]
