"""Downstream use: what small networks learn from synthetic images (Section 5.3), and agreement with masks.

A network is trained on real images, on synthetic ones or on both, always for the same number of steps, and
tested on real images of sources that neither it nor the generator saw; one task per network. Invariants:
what a network cannot learn from the data at hand is an error before any training; what is finished is not
done again; shares and stopping steps are chosen on validation sources, and the test sources choose nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffgen.config import Downstream, Filter
from diffgen.errors import UserError
from diffgen.evaluation import learnable, training_jobs
from diffgen.evaluation.bootstrap import Estimate, MeanStd, as_json
from diffgen.evaluation.downstream_figures import (
    agreement,
    classification_figures,
    gains,
    score,
    segmentation_figures,
    spread,
)
from diffgen.evaluation.experiments import Arm, Experiment, experiments
from diffgen.evaluation.images import RegionSet
from diffgen.evaluation.labelled_regions import LabelledRegions
from diffgen.evaluation.learnable import name_of
from diffgen.evaluation.tasks import Workers
from diffgen.evaluation.training_jobs import PixelFilter, TrainingJob
from diffgen.labels import Labels


@dataclass(frozen=True)
class ResultRow:
    """Networks that differ in their seed alone."""

    arm: Arm
    figures: dict[str, MeanStd]
    """Segmentation: `Dice CLASS`, and `mean Dice`; classification: `balanced accuracy`, `F1`."""
    gains: dict[str, Estimate] = field(default_factory=dict)
    """Of each figure above that of the same real images alone; none for these."""
    validation: float | None = None
    """Mean score on validation images."""
    stopped: tuple[int, ...] = ()
    """Steps of each seed's network."""
    chosen: bool = True
    """Whether its share is the best on validation images, of those that were tried."""


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
        rows = [vars(row) | {"arm": row.arm.name} | row.arm._asdict() for row in self.rows]
        return as_json(vars(self) | {"rows": rows})


def evaluate_downstream(
    real: RegionSet,
    synthetic: RegionSet,
    test: RegionSet,
    settings: Downstream,
    cache: Path,
    workers: Workers,
    filtering: Filter | None = None,
) -> DownstreamResults:
    """Networks trained on `real`, `synthetic` and both, on `test`: mean and deviation over seeds.

    Regions are of one side, and `test` is of sources that neither the networks nor the generator saw.
    Regions without labels are left out. With Ray, `cache` is a folder that all nodes see. Raises `UserError`,
    before any training, where the data does not serve (see `plan`).
    """
    asked = experiments(settings)
    segmenters = [Experiment(Arm("segmentation", "real", None), seed) for seed in range(settings.seeds)]
    more = [one for one in segmenters if one not in asked]
    labels, jobs, sets = plan([*asked, *more], real, synthetic, test, settings, cache, filtering or Filter())
    _train(list(jobs.values()), settings, workers)
    judges = [jobs[one] for one in segmenters]
    return DownstreamResults(
        rows=table([(one, jobs[one]) for one in asked], labels, sets["test"]),
        seeds=settings.seeds,
        regions={name: len(crops) for name, crops in sets.items()},
        agreement={
            name: agreement(
                [job.outcomes(of) for job in judges], sets[of].groups, labels, sets[of].images.where
            )
            for name, of in (("synthetic", "synthetic"), ("real", "test"))
        },
    )


def _train(jobs: Sequence[TrainingJob], settings: Downstream, workers: Workers) -> None:
    """What is not finished; first the networks that judge the pixels which others learn from."""
    # So few real images may be all there are: one network then serves two experiments.
    once = {job.weights: job for job in sorted(jobs, key=lambda job: len(job.judged))}
    todo = [job for job in once.values() if job.missing]
    workers.console.print(
        f"  {len(once)} trainings of {settings.steps} steps of {settings.batch} regions, "
        f"{len(once) - len(todo)} of them finished before"
    )
    for first in (True, False):
        part = [job for job in todo if (job.filter is None) == first]
        costs, unit = [job.cost for job in part], f"steps of {len(part)} networks"
        workers.run(training_jobs.run, [(job,) for job in part], costs, "downstream", unit)


def plan(
    asked: Sequence[Experiment],
    real: RegionSet,
    synthetic: RegionSet,
    test: RegionSet,
    settings: Downstream,
    cache: Path,
    filtering: Filter,
) -> tuple[Labels, dict[Experiment, TrainingJob], dict[str, RegionSet]]:
    """Names of the classes, a job per experiment, and the sets by name.

    A segmenter that learned from all real images is judged on the synthetic ones, too. `UserError` where a
    set has too little to learn from or to be judged on.
    """
    cache = cache.absolute()  # workers have another working folder
    sets = {"real": real.labelled, "synthetic": synthetic.labelled, "test": test.labelled}
    for name, crops in sets.items():
        if not crops.regions:
            raise UserError(f"{name_of(name, crops)}: no labelled regions of {settings.side} px")
    sets["real"], validation = learnable.set_apart(sets["real"], settings)
    if validation is not None:
        sets["validation"] = validation
    pixels = {name: learnable.class_pixels(crops, cache) for name, crops in sets.items()}
    labels = learnable.common_labels(sets, pixels)
    pixels = {name: those[:, : len(labels)] for name, those in pixels.items()}
    tasks, kinds = {one.arm.task for one in asked}, dict[str, NDArray[np.bool_]]()
    tested = [name for name in ("test", "validation") if name in sets]
    if "classification" in tasks:
        kinds = {name: learnable.positive(those, labels, settings) for name, those in pixels.items()}
        for name in tested:
            learnable.check_positive(name_of(name, sets[name]), kinds[name], settings)
    if "segmentation" in tasks:
        for name in tested:
            learnable.check_test(name_of(name, sets[name]), pixels[name])

    def learned(one: Experiment, name: str) -> LabelledRegions:
        """What a network learns from one set, checked."""
        arm, few = one.arm, one.arm.real_images if name == "real" else None
        here = learnable.few(sets[name], few, one.seed)
        crops = sets[name].part(here)
        told = name_of(name if here.all() else f"{few} of {name}", crops)
        if arm.task == "segmentation":
            learnable.check_classes(told, pixels[name][here], pixels["test"], labels)
            return LabelledRegions(crops)
        learnable.check_positive(told, kinds[name][here], settings)
        return LabelledRegions(crops, kinds[name][here])

    def job(one: Experiment) -> TrainingJob:
        arm = one.arm
        judged = dict[str, LabelledRegions]()
        for name in tested:
            judged[name] = LabelledRegions(
                sets[name], kinds.get(name) if arm.task == "classification" else None
            )
        if arm.baseline == arm and arm.task == "segmentation" and arm.real_images is None:
            judged["synthetic"] = LabelledRegions(sets["synthetic"])
        judge = None
        if arm.filtered:
            judge = PixelFilter(
                job(Experiment(arm.baseline, one.seed)), filtering.pixel_factor, filtering.disagreement
            )
        training = tuple(learned(one, name) for name in one.sets)
        return TrainingJob(one, training, judged, len(labels), settings, cache, judge)

    return labels, {one: job(one) for one in asked}, sets


def table(
    found: Sequence[tuple[Experiment, TrainingJob]], labels: Labels, test: RegionSet
) -> tuple[ResultRow, ...]:
    """Mean and deviation over the seeds, and paired gains, in the order of the experiments."""
    by_arm: dict[Arm, list[TrainingJob]] = {}
    for one, job in found:
        by_arm.setdefault(one.arm, []).append(job)
    best = chosen({arm: validated(jobs) for arm, jobs in by_arm.items()})
    return tuple(row(arm, by_arm, labels, test, arm in best) for arm in by_arm)


def row(
    arm: Arm, by_arm: Mapping[Arm, Sequence[TrainingJob]], labels: Labels, test: RegionSet, best: bool
) -> ResultRow:
    """Of the networks of one arm, one a seed."""
    outcomes = {name: [job.outcomes() for job in by_arm[name]] for name in (arm, arm.baseline)}
    figures = [
        segmentation_figures(one, labels) if arm.task == "segmentation" else classification_figures(one)
        for one in outcomes[arm]
    ]
    above = {}
    if arm != arm.baseline:
        where = name_of("test", test)
        above = gains(outcomes[arm], outcomes[arm.baseline], test.groups, arm.task, labels, where)
    return ResultRow(
        arm,
        {name: spread([those[name] for those in figures]) for name in figures[0]},
        above,
        validated(by_arm[arm]),
        tuple(job.stopped for job in by_arm[arm]),
        best,
    )


def validated(jobs: Sequence[TrainingJob]) -> float | None:
    """Mean score on validation images, where there are some."""
    if "validation" not in jobs[0].judged:
        return None
    return float(np.mean([score(job.outcomes("validation"), job.experiment.arm.task) for job in jobs]))


def chosen(validation: Mapping[Arm, float | None]) -> set[Arm]:
    """Of arms that differ in their share alone the best on validation images; the others are as they are."""
    best: dict[Arm, Arm] = {}
    for arm, value in validation.items():
        key = arm._replace(share=None)
        other = best.setdefault(key, arm)
        if (value or 0.0) > (validation[other] or 0.0):
            best[key] = arm
    return set(best.values())
