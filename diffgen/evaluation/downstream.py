"""Downstream use: what small networks learn from synthetic images (Section 5.3), and agreement with masks.

A network is trained on real images, on synthetic ones or on both, always for the same number of steps, and
tested on real images of sources that neither it nor the generator saw; one task per network. Invariants:
what a network cannot learn from the data at hand is an error before any training, and what is
finished is not done again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from diffgen.config import Downstream
from diffgen.errors import UserError
from diffgen.evaluation import training_jobs
from diffgen.evaluation.bootstrap import Estimate, MeanStd, as_json
from diffgen.evaluation.downstream_figures import (
    agreement,
    classification_figures,
    segmentation_figures,
    spread,
)
from diffgen.evaluation.images import RegionSet
from diffgen.evaluation.small_nets import TaskName
from diffgen.evaluation.tasks import Workers
from diffgen.evaluation.training_jobs import Experiment, LabelledRegions, TrainingJob, TrainingSet
from diffgen.labels import MAX_CLASSES, UNKNOWN, Labels
from diffgen.storage import atomic

TRAINING_SETS: tuple[TrainingSet, ...] = get_args(TrainingSet)
Pixels = NDArray[np.int64]
"""(N, classes): pixels of each class in each region."""


@dataclass(frozen=True)
class ResultRow:
    """Networks that differ in their seed alone."""

    task: TaskName
    trained_on: TrainingSet
    real_images: int | None
    figures: dict[str, MeanStd]
    """Segmentation: `Dice CLASS`, and `mean Dice`; classification: `balanced accuracy`, `F1`."""


@dataclass(frozen=True)
class DownstreamResults:
    """The table of Section 5.3, and agreement."""

    rows: tuple[ResultRow, ...]
    seeds: int
    regions: dict[str, int]
    """How many there were of each set."""
    agreement: dict[str, dict[str, Estimate]]
    """Of `synthetic` and held-out `real` images, by class name and their `mean`, as segmenters of real images
    judge them."""

    def to_json(self) -> dict[str, Any]:
        """Spreads as [mean, deviation], figures as [value, low, high]."""
        return as_json(vars(self) | {"rows": [vars(row) for row in self.rows]})


def evaluate_downstream(
    real: RegionSet,
    synthetic: RegionSet,
    test: RegionSet,
    settings: Downstream,
    cache: Path,
    workers: Workers,
) -> DownstreamResults:
    """Networks trained on `real`, `synthetic` and both, on `test`: mean and deviation over seeds.

    Regions are of one side, and `test` is of sources that neither the networks nor the generator saw.
    Regions without labels are left out. With Ray, `cache` is a folder that all nodes see. Raises `UserError`,
    before any training, where the data does not serve (see `plan`).
    """
    asked = experiments(settings)
    segmenters = [Experiment("segmentation", "real", None, seed) for seed in range(settings.seeds)]
    more = [one for one in segmenters if one not in asked]
    labels, jobs = plan([*asked, *more], real, synthetic, test, settings, cache)
    # So few real images may be all there are: one network then serves two experiments.
    once = {job.weights: job for job in sorted(jobs.values(), key=lambda job: len(job.judged))}
    todo = [job for job in once.values() if job.missing]
    costs, unit = [job.cost for job in todo], f"steps of {len(todo)} networks"
    workers.run(training_jobs.run, [(job,) for job in todo], costs, "downstream", unit)
    judges = [jobs[one] for one in segmenters]
    return DownstreamResults(
        rows=table([(one, _figures(jobs[one], labels)) for one in asked]),
        seeds=settings.seeds,
        regions={name: len(crops.labelled) for name, crops in _named(real, synthetic, test).items()},
        agreement={
            name: agreement(
                [job.outcomes(number) for job in judges], crops.labelled.groups, labels, crops.images.where
            )
            for name, number, crops in (("synthetic", 1, synthetic), ("real", 0, test))
        },
    )


def experiments(settings: Downstream) -> list[Experiment]:
    """All that are asked for; classification only where it is said what is positive."""
    return [
        Experiment(task, arm, images, seed)
        for task in settings.tasks
        if task == "segmentation" or settings.positive is not None
        for arm in TRAINING_SETS
        for images in (None, *(settings.real_images if arm != "synthetic" else ()))
        for seed in range(settings.seeds)
    ]


def plan(
    asked: Sequence[Experiment],
    real: RegionSet,
    synthetic: RegionSet,
    test: RegionSet,
    settings: Downstream,
    cache: Path,
) -> tuple[Labels, dict[Experiment, TrainingJob]]:
    """Names of the classes, and a job per experiment.

    A segmenter that learned from all real images is judged on the synthetic ones, too. `UserError` where a
    set has too little to learn from or to be judged on.
    """
    cache = cache.absolute()  # workers have another working folder
    sets = {name: crops.labelled for name, crops in _named(real, synthetic, test).items()}
    for name, crops in sets.items():
        if not crops.regions:
            raise UserError(f"{_name(name, crops)}: no labelled regions of {settings.side} px")
    pixels = {name: class_pixels(crops, cache) for name, crops in sets.items()}
    labels = _labels(sets, pixels)
    pixels = {name: those[:, : len(labels)] for name, those in pixels.items()}
    tasks, kinds, told = (
        {one.task for one in asked},
        dict[str, NDArray[np.bool_]](),
        _name("test", sets["test"]),
    )
    if "classification" in tasks:
        kinds = {name: positive(those, labels, settings) for name, those in pixels.items()}
        check_positive(told, kinds["test"], settings)
    if "segmentation" in tasks:
        check_test(told, pixels["test"])

    def learned(one: Experiment, name: str) -> LabelledRegions:
        """What a network learns from one set, checked."""
        here = few(sets[name], one.real_images if name == "real" else None, one.seed)
        crops = sets[name].part(here)
        told = _name(name if here.all() else f"{one.real_images} of {name}", crops)
        if one.task == "segmentation":
            check_classes(told, pixels[name][here], pixels["test"], labels)
            return LabelledRegions(crops)
        check_positive(told, kinds[name][here], settings)
        return LabelledRegions(crops, kinds[name][here])

    jobs = {}
    for one in asked:
        training = tuple(learned(one, name) for name in one.sets)
        judged = [LabelledRegions(sets["test"], kinds["test"] if one.task == "classification" else None)]
        if one.task == "segmentation" and one.trained_on == "real" and one.real_images is None:
            judged.append(LabelledRegions(sets["synthetic"]))
        jobs[one] = TrainingJob(one, training, tuple(judged), len(labels), settings, cache)
    return labels, jobs


def few(real: RegionSet, count: int | None, seed: int) -> NDArray[np.bool_]:
    """(N,): regions of `count` sources drawn by `seed`: those of a smaller count are among them.

    `UserError` where there are not so many sources.
    """
    if count is None:
        return np.ones(len(real), bool)
    sources = [region.source for region in real.regions]
    names = sorted(set(sources))
    if count > len(names):
        raise UserError(
            f"evaluation.downstream.real_images={count}: {real.images.where} has {len(names)} "
            "labelled sources"
        )
    order = np.random.default_rng(seed).permutation(len(names))[:count]
    return np.isin(sources, np.array(names)[order])


def positive(pixels: Pixels, labels: Labels, settings: Downstream) -> NDArray[np.bool_]:
    """(N,): regions with at least `positive_share` of their pixels of the class `positive`.

    `UserError` where no class is called so.
    """
    assert settings.positive is not None
    if settings.positive not in labels.classes[UNKNOWN + 1 :]:
        known = ", ".join(labels.classes[UNKNOWN + 1 :])
        raise UserError(
            f"evaluation.downstream.positive={settings.positive}: no such class; there are {known}"
        )
    share = pixels[:, labels.classes.index(settings.positive)] / pixels.sum(axis=1)
    return np.asarray(share >= settings.positive_share)


def check_classes(name: str, pixels: Pixels, test: Pixels, labels: Labels) -> None:
    """`UserError` where a class that the test set has is in no region of the training set `name`."""
    here, there = pixels.sum(axis=0), test.sum(axis=0)
    for k in range(UNKNOWN + 1, len(labels)):
        if there[k] and not here[k]:
            raise UserError(f"{name} has no pixel of {labels.classes[k]}, which the test images have")


def check_test(name: str, test: Pixels) -> None:
    """`UserError` unless there are two known classes to tell apart."""
    if np.count_nonzero(test[:, UNKNOWN + 1 :].sum(axis=0)) < 2:
        raise UserError(f"{name}: segmentation needs two known classes in the test images")


def check_positive(name: str, regions: NDArray[np.bool_], settings: Downstream) -> None:
    """`UserError` unless a set has regions of both kinds."""
    if regions.all() or not regions.any():
        what = "without" if regions.all() else "with"
        raise UserError(
            f"{name} has no region {what} {settings.positive_share:.2%} of {settings.positive}: "
            "nothing to classify"
        )


def class_pixels(crops: RegionSet, cache: Path) -> Pixels:
    """(N, 256) pixels of each class id in labelled regions; kept, for to count them all are read."""
    path = cache / f"pixels-{LabelledRegions(crops).digest[:24]}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        counts = [np.bincount(one.reshape(-1), minlength=MAX_CLASSES) for one in crops.label_maps()]
        with atomic(path) as file:
            np.save(file, np.array(counts, dtype=np.int64))
    return np.asarray(np.load(path), dtype=np.int64)


def table(found: Sequence[tuple[Experiment, dict[str, float]]]) -> tuple[ResultRow, ...]:
    """Mean and sample deviation over the seeds, in the order of the experiments."""
    rows: dict[tuple[TaskName, TrainingSet, int | None], list[dict[str, float]]] = {}
    for one, figures in found:
        rows.setdefault((one.task, one.trained_on, one.real_images), []).append(figures)
    return tuple(
        ResultRow(*key, {name: spread([figures[name] for figures in seeds]) for name in seeds[0]})
        for key, seeds in rows.items()
    )


def _figures(job: TrainingJob, labels: Labels) -> dict[str, float]:
    if job.experiment.task == "segmentation":
        return segmentation_figures(job.outcomes(), labels)
    return classification_figures(job.outcomes())


def _named(real: RegionSet, synthetic: RegionSet, test: RegionSet) -> dict[str, RegionSet]:
    return {"real": real, "synthetic": synthetic, "test": test}


def _name(name: str, crops: RegionSet) -> str:
    return f"{crops.images.where} ({name})"


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
