"""One small network from shards to files: trained, judged, and found again when it is finished.

    <digest>.safetensors   its weights, by all that it was trained on and how
    <digest>-steps.json    where something was left to validation images: score by step
    <digest>.json          what it made of a set of regions, by the weights' digest and that set

Invariants: a file stands whole or not at all, under a digest of all that it depends on. So a run that was
stopped resumes with what it lacks, results of other data are never taken for these, and a network that saw
real images alone is not trained anew for another synthetic set. No test image has a part in any choice.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import nn

from diffgen.config import Downstream
from diffgen.evaluation import pixel_agreement, small_nets
from diffgen.evaluation.downstream_figures import count, score
from diffgen.evaluation.experiments import Experiment
from diffgen.evaluation.labelled_regions import LabelledRegions
from diffgen.evaluation.small_nets import Checkpoints
from diffgen.storage import atomic, write_text

SCORED = 16
"""Regions per forward when a network is judged."""
MEASURED = 512
"""Real regions at most that the mean losses of classes come from."""


@dataclass(frozen=True)
class PixelFilter:
    """A segmenter that judges the synthetic pixels which another learns from."""

    judge: "TrainingJob"
    """Trained on the same real images."""
    factor: float
    """Of the class's mean loss on them."""
    most: float
    """Share of wrong pixels from which on a region teaches nothing."""


@dataclass(frozen=True)
class TrainingJob:
    """A network to be trained, and the sets it is judged on by name."""

    experiment: Experiment
    training: tuple[LabelledRegions, ...]
    judged: Mapping[str, LabelledRegions]
    """`test`, and for some `synthetic` and `validation`."""
    classes: int
    """Class ids, unknown among them."""
    settings: Downstream
    cache: Path
    filter: PixelFilter | None = None

    @cached_property
    def weights(self) -> Path:
        arm, seed = self.experiment.arm, self.experiment.seed
        how = self.settings.model_dump(include={"steps", "batch", "lr", "width"})
        seen: list[Any] = [regions.digest for regions in self.training]
        if arm.trained_on == "pretrained" or arm.share is not None:
            seen += [arm.trained_on, arm.share]
        if self.filter is not None:
            seen += [self.filter.judge.weights.stem, self.filter.factor, self.filter.most]
        if self.settings.stops > 1:
            seen += [self.settings.stops, self.judged["validation"].digest]
        digest = _digest([small_nets.VERSION, arm.task, seed, how, self.classes, seen])
        return self.cache / f"{digest}.safetensors"

    @cached_property
    def results(self) -> dict[str, Path]:
        """By the name of what was judged."""
        digests = {
            name: _digest([self.weights.stem, regions.digest]) for name, regions in self.judged.items()
        }
        return {name: self.cache / f"{digest}.json" for name, digest in digests.items()}

    @property
    def missing(self) -> bool:
        return not all(path.exists() for path in self.results.values())

    @property
    def cost(self) -> int:
        """Batches that it works on."""
        return self.settings.steps + sum(-(-len(regions.crops) // SCORED) for regions in self.judged.values())

    @property
    def _steps(self) -> Path:
        return self.weights.with_name(f"{self.weights.stem}-steps.json")

    @property
    def stopped(self) -> int:
        """Steps of the weights that are kept."""
        if not self._steps.exists():
            return self.settings.steps
        scores = json.loads(self._steps.read_text())
        best = max(scores.values())
        return max(int(step) for step, value in scores.items() if value >= best)

    def outcomes(self, name: str = "test") -> NDArray[np.int64]:
        """Of each region of a judged set: (N, classes, 3) counts, or (N, 2) truth and prediction."""
        return np.array(json.loads(self.results[name].read_text())["outcomes"], dtype=np.int64)

    def network(self) -> nn.Module:
        """As it is before any training."""
        arm = self.experiment.arm
        outputs = 2 if arm.task == "classification" else self.classes - 1
        return small_nets.build(arm.task, outputs, self.settings.width, self.experiment.seed)

    def trained(self) -> nn.Module:
        """As it was when it was finished."""
        network = self.network()
        network.load_state_dict(load_file(self.weights))
        return network

    @property
    def losses(self) -> Path:
        """Where `class_means` are kept."""
        return self.weights.with_name(f"{self.weights.stem}-losses.json")

    def class_means(self, device: str) -> NDArray[np.float64]:
        """(classes,): mean losses of a segmenter on what it was trained on; measured once."""
        path = self.losses
        if not path.exists():
            drawn = LabelledRegions(self.training[0].crops.drawn(MEASURED))
            pairs = ((a[0], b[0]) for a, b in (drawn.read([k]) for k in range(len(drawn.crops))))
            means = pixel_agreement.class_means(self.trained(), pairs, self.classes, device)
            write_text(path, json.dumps([None if np.isnan(mean) else float(mean) for mean in means]))
        return np.array(json.loads(path.read_text()), dtype=float)


def run(job: TrainingJob, device: str = "cpu") -> None:
    """Train the network, unless it was, and judge it. `UserError` where an image cannot be read.

    The judge of a filter has to be trained before.
    """
    started = time.monotonic()
    job.cache.mkdir(parents=True, exist_ok=True)
    if job.weights.exists():
        network = job.trained()
    else:
        network = job.network()
        _train(network, job, device)
        with atomic(job.weights) as file:
            file.write(save({name: tensor.cpu() for name, tensor in network.state_dict().items()}))
    for name, path in job.results.items():
        if path.exists():
            continue
        outcomes = _judge(network, job, job.judged[name], device)
        found = {
            "experiment": job.experiment.arm._asdict() | {"seed": job.experiment.seed},
            "judged_on": job.judged[name].crops.images.where,
            "seconds": round(time.monotonic() - started, 1),
            "outcomes": outcomes.tolist(),
        }
        write_text(path, json.dumps(found))


def _train(network: nn.Module, job: TrainingJob, device: str) -> None:
    """Only regions that are drawn are read: memory is bounded by the steps, not by the sets."""
    task, seed = job.experiment.arm.task, job.experiment.seed
    ends = np.cumsum([0, *(len(one.crops) for one in job.training)])
    orders = _orders(job, ends)
    drawn = np.unique(np.concatenate([order.reshape(-1) for order in orders]))
    read = [
        regions.read((drawn[(drawn >= start) & (drawn < end)] - start).tolist())
        for regions, start, end in zip(job.training, ends, ends[1:], strict=False)
    ]
    if job.filter is not None:
        read[-1] = (read[-1][0], _filtered(job.filter, *read[-1], device))
    pictures, targets = (np.concatenate(those) for those in zip(*read, strict=True))
    scores, done = dict[int, float](), 0
    for order in orders:
        places = np.searchsorted(drawn, order)
        looks = _checkpoints(job, done, device) if order is orders[-1] else None
        small_nets.fit(network, task, pictures, targets, places, job.settings, seed, device, looks)
        if looks:
            scores = {done + step: value for step, value in looks.scores.items()}
        done += len(order)
    if scores:
        write_text(job._steps, json.dumps(scores))


def _orders(job: TrainingJob, ends: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Which regions come in which step (steps, batch): one order, or two for what is trained in two parts."""
    arm, settings, seed = job.experiment.arm, job.settings, job.experiment.seed
    by_set = []
    for regions, start, end in zip(job.training, ends, ends[1:], strict=False):
        kinds = [slice(None)] if regions.positive is None else [regions.positive, ~regions.positive]
        by_set.append([np.arange(start, end)[kind] for kind in kinds])
    if arm.trained_on == "pretrained":
        first = settings.steps // 2
        parts = ((by_set[1], first), (by_set[0], settings.steps - first))
        return [
            small_nets.draws(pools, [1 / len(pools)] * len(pools), settings.batch, steps, seed)
            for pools, steps in parts
        ]
    weights = [1.0] if arm.share is None else [1 - arm.share, arm.share]
    shares = [weight / len(pools) for weight, pools in zip(weights, by_set, strict=True) for _ in pools]
    pools = [pool for those in by_set for pool in those]
    return [small_nets.draws(pools, shares, settings.batch, settings.steps, seed)]


def _checkpoints(job: TrainingJob, done: int, device: str) -> Checkpoints | None:
    """Where the last part of a training, which begins after `done` steps, may end."""
    settings, task = job.settings, job.experiment.arm.task
    if settings.stops == 1:
        return None
    at = {round(settings.steps * k / settings.stops) - done for k in range(1, settings.stops + 1)}

    def judged(network: nn.Module) -> float:
        return score(_judge(network, job, job.judged["validation"], device), task)

    return Checkpoints(frozenset(step for step in at if step > 0), judged)


def _filtered(
    how: PixelFilter, pictures: NDArray[np.uint8], label_maps: NDArray[np.uint8], device: str
) -> NDArray[np.uint8]:
    """Label maps (B, H, W) in which wrong pixels, or all of a region with too many of them, are unknown."""
    losses = pixel_agreement.pixel_losses(how.judge.trained(), pictures, label_maps, device)
    wrong = pixel_agreement.disagreed(losses, label_maps, how.judge.class_means(device), how.factor)
    wrong |= (pixel_agreement.share_of_known(wrong, label_maps) > how.most)[:, None, None]
    return np.where(wrong, 0, label_maps).astype(np.uint8)


def _judge(network: nn.Module, job: TrainingJob, regions: LabelledRegions, device: str) -> NDArray[np.int64]:
    found, task = list[NDArray[np.int64]](), job.experiment.arm.task
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
