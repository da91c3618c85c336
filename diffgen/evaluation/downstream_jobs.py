"""One network of `use`, from shards to files: trained, judged, and found again when it is finished.

    <digest>.safetensors   its weights, by all that it was trained on and how
    <digest>.json          what it made of a set of regions, by the weights' digest and that set

Invariants: a file stands whole or not at all, under a digest of all that it depends on. So a run that was
interrupted resumes with what it lacks, results of other data are never taken for these, and a network that
saw real images alone is not trained anew for another synthetic set.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import nn

from diffgen.config import Downstream
from diffgen.errors import UserError
from diffgen.evaluation import small_nets
from diffgen.evaluation.downstream import (
    Experiment,
    Pixels,
    check_classes,
    check_positive,
    check_test,
    count,
    few,
    positive,
)
from diffgen.evaluation.images import RegionSet
from diffgen.files import atomic, write_text
from diffgen.labels import MAX_CLASSES, Labels

SCORED = 16
"""Regions per forward when a network is judged."""


@dataclass(frozen=True)
class LoadedRegions:
    """Labelled regions that a network learns from, or is judged on."""

    crops: RegionSet
    positive: NDArray[np.bool_] | None = None
    """(N,), of classification."""

    @cached_property
    def digest(self) -> str:
        regions = [list(vars(region).values()) for region in self.crops.regions]
        total = hashlib.sha256(json.dumps([self.crops.images.digest, regions]).encode())
        total.update(b"" if self.positive is None else self.positive.tobytes())
        return total.hexdigest()

    @property
    def batches(self) -> int:
        """That a network is judged in."""
        return -(-len(self.crops) // SCORED)

    def read(self, numbers: Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Pictures (B, side, side, 3) and what is in them: label maps (B, side, side), or 0 and 1 (B,)."""
        images, regions = self.crops.images, [self.crops.regions[number] for number in numbers]
        pictures = np.stack([images.read(region)[0] for region in regions])
        if self.positive is not None:
            return pictures, self.positive[list(numbers)].astype(np.uint8)
        return pictures, np.stack([images.label_map(region) for region in regions])


@dataclass(frozen=True)
class Job:
    """A network to be trained, and the sets it is judged on: the test set comes first."""

    experiment: Experiment
    training: tuple[LoadedRegions, ...]
    judged: tuple[LoadedRegions, ...]
    classes: int
    """Class ids, unknown among them."""
    settings: Downstream
    weights: Path
    results: tuple[Path, ...]
    """One a judged set."""

    @property
    def missing(self) -> bool:
        return not all(path.exists() for path in self.results)

    @property
    def cost(self) -> int:
        """Batches that it works on."""
        return self.settings.steps + sum(regions.batches for regions in self.judged)

    def outcomes(self, number: int = 0) -> NDArray[np.int64]:
        """Of each region of a judged set: (N, classes, 3) counts, or (N, 2) truth and prediction."""
        return np.array(json.loads(self.results[number].read_text())["outcomes"], dtype=np.int64)


def plan(
    asked: Sequence[Experiment],
    real: RegionSet,
    synthetic: RegionSet,
    test: RegionSet,
    settings: Downstream,
    cache: Path,
) -> tuple[Labels, list[Job], dict[str, int]]:
    """Names of the classes, a job an experiment, the number of labelled regions in each set.

    A segmenter that learned from all real images is judged on the synthetic ones, too (`agreement`).
    `UserError` where a set has too little to learn from or to be judged on.
    """
    cache = cache.absolute()  # workers have another working folder
    sets = {"real": real.labelled, "synthetic": synthetic.labelled, "test": test.labelled}
    for name, crops in (("real", real), ("synthetic", synthetic), ("test", test)):
        if not sets[name].regions:
            raise UserError(f"{crops.images.where} ({name}): no labelled regions of {settings.side} px")
    pixels = {name: class_pixels(crops, cache) for name, crops in sets.items()}
    labels = _labels(sets, pixels)
    pixels = {name: those[:, : len(labels)] for name, those in pixels.items()}
    for task in dict.fromkeys(one.task for one in asked):
        if task == "segmentation":
            check_test(_name("test", sets["test"]), pixels["test"])
        else:
            found = positive(pixels["test"], labels, settings)
            check_positive(_name("test", sets["test"]), found, settings)
    jobs = []
    for one in asked:
        training = [_chosen(one, name, sets, pixels, labels, settings) for name in one.sets]
        judged = [_all(one, "test", sets, pixels, labels, settings)]
        if one.task == "segmentation" and one.trained_on == "real" and one.real_images is None:
            judged.append(LoadedRegions(sets["synthetic"]))
        jobs.append(_job(one, training, judged, len(labels), settings, cache))
    return labels, jobs, {name: len(crops) for name, crops in sets.items()}


def run(job: Job, device: str = "cpu", tell: Callable[[int], Any] = lambda _: None) -> None:
    """Train the network, unless it was, and judge it; `tell` hears of every batch."""
    one, started = job.experiment, time.monotonic()
    outputs = 2 if one.task == "classification" else job.classes - 1
    network = small_nets.build(one.task, outputs, job.settings.width, one.seed)
    job.weights.parent.mkdir(parents=True, exist_ok=True)
    if job.weights.exists():
        network.load_state_dict(load_file(job.weights))
        tell(job.settings.steps)
    else:
        _train(network, job, device, tell)
        with atomic(job.weights) as file:
            file.write(save({name: tensor.cpu() for name, tensor in network.state_dict().items()}))
    for regions, path in zip(job.judged, job.results, strict=True):
        if path.exists():
            tell(regions.batches)
            continue
        outcomes = _judge(network, job, regions, device, tell)
        found = {
            "experiment": asdict(one),
            "judged_on": regions.crops.images.where,
            "seconds": round(time.monotonic() - started, 1),
            "outcomes": outcomes.tolist(),
        }
        write_text(path, json.dumps(found))


def _train(network: nn.Module, job: Job, device: str, tell: Callable[[int], Any]) -> None:
    """Only regions that are drawn are read: memory is bounded by the steps, not by the sets."""
    pools, start = list[NDArray[np.intp]](), 0
    for regions in job.training:
        numbers = np.arange(start, start + len(regions.crops))
        kinds = [regions.positive, ~regions.positive] if regions.positive is not None else [slice(None)]
        pools += [numbers[kind] for kind in kinds]
        start += len(numbers)
    order = small_nets.draws(pools, job.settings.batch, job.settings.steps, job.experiment.seed)
    drawn, places = np.unique(order, return_inverse=True)
    read, start = list[tuple[NDArray[np.uint8], NDArray[np.uint8]]](), 0
    for regions in job.training:
        end = start + len(regions.crops)
        read.append(regions.read((drawn[(drawn >= start) & (drawn < end)] - start).tolist()))
        start = end
    pictures, targets = (np.concatenate(those) for those in zip(*read, strict=True))
    small_nets.fit(
        network, job.experiment.task, pictures, targets, places.reshape(order.shape), job.settings,
        job.experiment.seed, device, tell,
    )  # fmt: skip


def _judge(
    network: nn.Module, job: Job, regions: LoadedRegions, device: str, tell: Callable[[int], Any]
) -> NDArray[np.int64]:
    found, task = list[NDArray[np.int64]](), job.experiment.task
    for start in range(0, len(regions.crops), SCORED):
        pictures, truth = regions.read(range(start, min(start + SCORED, len(regions.crops))))
        predicted = small_nets.predict(network, task, pictures, device)
        if task == "segmentation":
            found += [count(*pair, job.classes) for pair in zip(truth, predicted, strict=True)]
        else:
            found += list(np.stack([truth, predicted], axis=1).astype(np.int64))
        tell(1)
    return np.stack(found)


def class_pixels(crops: RegionSet, cache: Path) -> Pixels:
    """(N, 256) pixels of each class id in labelled regions; kept, for to count them all are read."""
    path = cache / f"pixels-{LoadedRegions(crops).digest[:24]}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        counts = [np.bincount(one.reshape(-1), minlength=MAX_CLASSES) for one in crops.label_maps()]
        with atomic(path) as file:
            np.save(file, np.array(counts, dtype=np.int64))
    return np.asarray(np.load(path), dtype=np.int64)


def _labels(sets: dict[str, RegionSet], pixels: dict[str, Pixels]) -> Labels:
    """Names of the classes as one of the sets tells them, else numbers."""
    highest = {name: int(np.flatnonzero(those.sum(axis=0)).max()) for name, those in pixels.items()}
    told = [crops.images.labels for crops in sets.values() if crops.images.labels is not None]
    if not told:
        names = (f"class {k}" for k in range(1, max(highest.values()) + 1))
        return Labels(("unknown", *names))
    for name, crops in sets.items():
        if highest[name] >= len(told[0]):
            known = f"ids 0 to {len(told[0]) - 1}"
            raise UserError(f"{_name(name, crops)} has class id {highest[name]}; the classes have {known}")
    return told[0]


def _name(name: str, crops: RegionSet) -> str:
    return f"{crops.images.where} ({name})"


def _chosen(
    one: Experiment,
    name: str,
    sets: dict[str, RegionSet],
    pixels: dict[str, Pixels],
    labels: Labels,
    settings: Downstream,
) -> LoadedRegions:
    """What a network learns from one set, checked."""
    whole = _all(one, name, sets, pixels, labels, settings)
    crops = few(whole.crops, one.real_images if name == "real" else None, one.seed)
    wanted = set(crops.regions)
    here = np.array([region in wanted for region in whole.crops.regions])
    told = _name(name if len(crops) == len(whole.crops) else f"{one.real_images} of {name}", crops)
    if whole.positive is None:
        check_classes(told, pixels[name][here], pixels["test"], labels)
        return LoadedRegions(crops)
    check_positive(told, whole.positive[here], settings)
    return LoadedRegions(crops, whole.positive[here])


def _all(
    one: Experiment,
    name: str,
    sets: dict[str, RegionSet],
    pixels: dict[str, Pixels],
    labels: Labels,
    settings: Downstream,
) -> LoadedRegions:
    found = positive(pixels[name], labels, settings) if one.task == "classification" else None
    return LoadedRegions(sets[name], found)


def _job(
    one: Experiment,
    training: Sequence[LoadedRegions],
    judged: Sequence[LoadedRegions],
    classes: int,
    settings: Downstream,
    cache: Path,
) -> Job:
    how = settings.model_dump(include={"steps", "batch", "lr", "width"})
    seen = [regions.digest for regions in training]
    trained = _digest([small_nets.VERSION, one.task, one.seed, how, classes, seen])
    results = tuple(cache / f"{_digest([trained, regions.digest])}.json" for regions in judged)
    weights = cache / f"{trained}.safetensors"
    return Job(one, tuple(training), tuple(judged), classes, settings, weights, results)


def _digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]
