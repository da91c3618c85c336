"""Which pixels of synthetic images contradict their label maps: a task, and a Parquet file, a chunk.

Invariants: an image is judged by itself, in windows of the size that the segmenter learned from, so what is
said of it does not depend on what else is in the set; a file stands whole under a digest of all that it
depends on, so a command that was stopped resumes, and a set that grew is judged where it did.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from diffgen.curation.shard_images import ShardImages, corners
from diffgen.evaluation import pixel_agreement, training_jobs
from diffgen.evaluation.training_jobs import TrainingJob
from diffgen.labels import UNKNOWN, LabelMap, Picture
from diffgen.storage import atomic

Wrong = NDArray[np.bool_]
"""(H, W): known pixels that contradict the picture."""


@dataclass(frozen=True)
class AgreementJob:
    """A chunk of samples, the segmenter that judges them, and where to keep what it says."""

    images: ShardImages
    segmenter: TrainingJob
    factor: float
    cache: Path

    @cached_property
    def path(self) -> Path:
        about = [self.images.digest, self.segmenter.weights.stem, self.factor, self.side]
        return self.cache / f"{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]}.parquet"

    @property
    def side(self) -> int:
        """Of the windows."""
        return self.segmenter.training[0].crops.side


def train(segmenter: TrainingJob, device: str = "cpu") -> None:
    """The segmenter, and the mean losses of its classes; nothing where both are there."""
    training_jobs.run(segmenter, device)
    segmenter.class_means(device)


def judge(job: AgreementJob, device: str = "cpu") -> None:
    """What the segmenter says of each sample of a chunk, to its file."""
    network, means = job.segmenter.trained(), job.segmenter.class_means(device)
    rows, shards = [], job.images.shards
    for number in job.images.numbers:
        picture, label_map = shards.picture(number), shards.label_map(number)
        losses = whole_losses(network, picture, label_map, job.side, device)
        wrong = pixel_agreement.disagreed(losses, label_map, means, job.factor)
        known = int((label_map != UNKNOWN).sum())
        rows.append({
            "key": shards.place(number).key,
            "known": known,
            "wrong": int(wrong.sum()),
            "loss": float(losses.sum(dtype=float) / max(known, 1)),
            "pixels": to_png(wrong),
        })  # fmt: skip
    job.cache.mkdir(parents=True, exist_ok=True)
    with atomic(job.path) as file:
        pq.write_table(pa.Table.from_pylist(rows), file)


def whole_losses(
    network: nn.Module, picture: Picture, label_map: LabelMap, side: int, device: str = "cpu"
) -> pixel_agreement.Losses:
    """(H, W): loss of each pixel of a picture (H, W, 3) of any size from `side` up, window by window."""
    height, width = label_map.shape
    boxes = [
        (slice(y, y + side), slice(x, x + side)) for y in corners(height, side) for x in corners(width, side)
    ]
    whole = np.empty((height, width), np.float32)
    for start in range(0, len(boxes), pixel_agreement.AT_ONCE):
        part = boxes[start : start + pixel_agreement.AT_ONCE]
        pictures, maps = (np.stack([of[box] for box in part]) for of in (picture, label_map))
        for box, losses in zip(
            part, pixel_agreement.pixel_losses(network, pictures, maps, device), strict=True
        ):
            whole[box] = losses
    return whole


class WrongPixels:
    """By the number of a sample, out of the files of the chunks."""

    def __init__(self, jobs: Sequence[AgreementJob]) -> None:
        self.place = {number: (job, row) for job in jobs for row, number in enumerate(job.images.numbers)}
        self._last: tuple[Path, list[bytes]] = Path(), []

    def __call__(self, number: int) -> Wrong:
        job, row = self.place[number]
        if self._last[0] != job.path:
            self._last = job.path, pq.read_table(job.path, columns=["pixels"])["pixels"].to_pylist()
        return from_png(self._last[1][row])


def to_png(wrong: Wrong) -> bytes:
    """One bit a pixel."""
    sink = io.BytesIO()
    Image.fromarray(wrong).save(sink, "PNG")
    return sink.getvalue()


def from_png(data: bytes) -> Wrong:
    return np.asarray(Image.open(io.BytesIO(data)), dtype=bool)
