"""One small network from shards to files: trained, judged, and found again when it is finished.

    <digest>.safetensors   its weights, by all that it was trained on and how
    <digest>.json          what it made of a set of regions, by the weights' digest and that set

Invariants: a file stands whole or not at all, under a digest of all that it depends on. So a run that was
stopped resumes with what it lacks, results of other data are never taken for these, and a network that saw
real images alone is not trained anew for another synthetic set.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import nn

from diffgen.config import Downstream
from diffgen.evaluation import small_nets
from diffgen.evaluation.downstream_figures import count
from diffgen.evaluation.images import RegionSet
from diffgen.evaluation.small_nets import TaskName
from diffgen.storage import atomic, write_text

TrainingSet = Literal["real", "synthetic", "both"]
SCORED = 16
"""Regions per forward when a network is judged."""


@dataclass(frozen=True)
class Experiment:
    """One network."""

    task: TaskName
    trained_on: TrainingSet
    real_images: int | None
    """Of so many real sources; None for all, and for a network that sees none."""
    seed: int

    @property
    def sets(self) -> tuple[str, ...]:
        """What it is trained on."""
        return ("real", "synthetic") if self.trained_on == "both" else (self.trained_on,)


@dataclass(frozen=True)
class LabelledRegions:
    """What a network learns from, or is judged on."""

    crops: RegionSet
    positive: NDArray[np.bool_] | None = None
    """(N,), of classification."""

    @cached_property
    def digest(self) -> str:
        regions = [list(vars(region).values()) for region in self.crops.regions]
        total = hashlib.sha256(json.dumps([self.crops.images.digest, regions]).encode())
        total.update(b"" if self.positive is None else self.positive.tobytes())
        return total.hexdigest()

    def read(self, numbers: Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Pictures (B, side, side, 3) and what is in them: label maps (B, side, side), or 0 and 1 (B,)."""
        images, regions = self.crops.images, [self.crops.regions[number] for number in numbers]
        pictures = np.stack([images.read(region)[0] for region in regions])
        if self.positive is not None:
            return pictures, self.positive[list(numbers)].astype(np.uint8)
        return pictures, np.stack([images.label_map(region) for region in regions])


@dataclass(frozen=True)
class TrainingJob:
    """A network to be trained, and the sets it is judged on: the test set comes first."""

    experiment: Experiment
    training: tuple[LabelledRegions, ...]
    judged: tuple[LabelledRegions, ...]
    classes: int
    """Class ids, unknown among them."""
    settings: Downstream
    cache: Path

    @cached_property
    def weights(self) -> Path:
        one, how = self.experiment, self.settings.model_dump(include={"steps", "batch", "lr", "width"})
        seen = [regions.digest for regions in self.training]
        digest = _digest([small_nets.VERSION, one.task, one.seed, how, self.classes, seen])
        return self.cache / f"{digest}.safetensors"

    @cached_property
    def results(self) -> tuple[Path, ...]:
        """One per judged set."""
        digests = (_digest([self.weights.stem, regions.digest]) for regions in self.judged)
        return tuple(self.cache / f"{digest}.json" for digest in digests)

    @property
    def missing(self) -> bool:
        return not all(path.exists() for path in self.results)

    @property
    def cost(self) -> int:
        """Batches that it works on."""
        return self.settings.steps + sum(-(-len(regions.crops) // SCORED) for regions in self.judged)

    def outcomes(self, number: int = 0) -> NDArray[np.int64]:
        """Of each region of a judged set: (N, classes, 3) counts, or (N, 2) truth and prediction."""
        return np.array(json.loads(self.results[number].read_text())["outcomes"], dtype=np.int64)


def run(job: TrainingJob, device: str = "cpu") -> None:
    """Train the network, unless it was, and judge it. `UserError` where an image cannot be read."""
    one, started = job.experiment, time.monotonic()
    outputs = 2 if one.task == "classification" else job.classes - 1
    network = small_nets.build(one.task, outputs, job.settings.width, one.seed)
    job.cache.mkdir(parents=True, exist_ok=True)
    if job.weights.exists():
        network.load_state_dict(load_file(job.weights))
    else:
        _train(network, job, device)
        with atomic(job.weights) as file:
            file.write(save({name: tensor.cpu() for name, tensor in network.state_dict().items()}))
    for regions, path in zip(job.judged, job.results, strict=True):
        if path.exists():
            continue
        outcomes = _judge(network, job, regions, device)
        found = {
            "experiment": asdict(one),
            "judged_on": regions.crops.images.where,
            "seconds": round(time.monotonic() - started, 1),
            "outcomes": outcomes.tolist(),
        }
        write_text(path, json.dumps(found))


def _train(network: nn.Module, job: TrainingJob, device: str) -> None:
    """Only regions that are drawn are read: memory is bounded by the steps, not by the sets."""
    pools, ends = list[NDArray[np.intp]](), np.cumsum([0, *(len(one.crops) for one in job.training)])
    for regions, start, end in zip(job.training, ends, ends[1:], strict=False):
        kinds = [slice(None)] if regions.positive is None else [regions.positive, ~regions.positive]
        pools += [np.arange(start, end)[kind] for kind in kinds]
    order = small_nets.draws(pools, job.settings.batch, job.settings.steps, job.experiment.seed)
    drawn, places = np.unique(order, return_inverse=True)
    read = [
        regions.read((drawn[(drawn >= start) & (drawn < end)] - start).tolist())
        for regions, start, end in zip(job.training, ends, ends[1:], strict=False)
    ]
    pictures, targets = (np.concatenate(those) for those in zip(*read, strict=True))
    small_nets.fit(
        network, job.experiment.task, pictures, targets, places.reshape(order.shape), job.settings,
        job.experiment.seed, device,
    )  # fmt: skip


def _judge(network: nn.Module, job: TrainingJob, regions: LabelledRegions, device: str) -> NDArray[np.int64]:
    found, task = list[NDArray[np.int64]](), job.experiment.task
    for start in range(0, len(regions.crops), SCORED):
        pictures, truth = regions.read(range(start, min(start + SCORED, len(regions.crops))))
        predicted = small_nets.predict(network, task, pictures, device)
        if task == "segmentation":
            found += [count(*pair, job.classes) for pair in zip(truth, predicted, strict=True)]
        else:
            found += list(np.stack([truth, predicted], axis=1).astype(np.int64))
    return np.stack(found)


def _digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]
