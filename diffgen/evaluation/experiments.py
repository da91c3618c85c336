"""Which networks are trained: a task, what it is learned from, how many real images, a seed."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from diffgen.config import Downstream
from diffgen.evaluation.small_nets import TaskName

TrainingSet = Literal["real", "synthetic", "both", "pretrained"]


class Arm(NamedTuple):
    """All that an experiment is but its seed: a row of the table."""

    task: TaskName
    trained_on: TrainingSet
    real_images: int | None
    """Of so many real sources; None for all, and for a network that sees none."""
    share: float | None = None
    """Of the regions that are synthetic, where both are mixed."""
    filtered: bool = False
    """Whether pixels of synthetic images that a segmenter of the real ones disagrees with are unknown."""

    @property
    def baseline(self) -> "Arm":
        """The same real images alone."""
        return Arm(self.task, "real", self.real_images)

    @property
    def name(self) -> str:
        """As tables call it."""
        words = {"real": "real", "synthetic": "synthetic", "pretrained": "synthetic, then real"}
        mixed = f"both, {self.share or 0:.0%} synthetic"
        told = words.get(self.trained_on, mixed)
        told += ", filtered" if self.filtered else ""
        return told if self.real_images is None else f"{told}, {self.real_images} real images"


@dataclass(frozen=True)
class Experiment:
    """One network."""

    arm: Arm
    seed: int

    @property
    def sets(self) -> tuple[str, ...]:
        """What it is trained on, in this order in its batches."""
        return {"real": ("real",), "synthetic": ("synthetic",)}.get(
            self.arm.trained_on, ("real", "synthetic")
        )


def experiments(settings: Downstream) -> list[Experiment]:
    """All that are asked for; classification only where it is said what is positive."""
    return [
        Experiment(arm, seed)
        for task in settings.tasks
        if task == "segmentation" or settings.positive is not None
        for arm in arms(task, settings)
        for seed in range(settings.seeds)
    ]


def arms(task: TaskName, settings: Downstream) -> list[Arm]:
    """Of one task. Classifiers know no pixels, so none is filtered for them."""
    return [
        Arm(task, trained_on, images, share, filtered)
        for trained_on in settings.arms
        for share in (settings.shares if trained_on == "both" else (None,))
        for filtered in _filters(task, trained_on, settings)
        for images in _counts(trained_on, settings)
    ]


def _counts(trained_on: TrainingSet, settings: Downstream) -> tuple[int | None, ...]:
    """Of real images; None for all, or none."""
    if trained_on == "synthetic":
        return (None,)
    return (*([None] if settings.all_images or trained_on == "real" else []), *settings.real_images)


def _filters(task: TaskName, trained_on: TrainingSet, settings: Downstream) -> tuple[bool, ...]:
    if task == "classification" or trained_on == "real":
        return (False,)
    return settings.filters
