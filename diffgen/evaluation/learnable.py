"""What small networks can learn from the sets at hand: said before any of them is trained."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffgen.config import Downstream
from diffgen.errors import UserError
from diffgen.evaluation.images import RegionSet
from diffgen.evaluation.labelled_regions import LabelledRegions
from diffgen.labels import MAX_CLASSES, UNKNOWN, Labels
from diffgen.storage import atomic

Pixels = NDArray[np.int64]
"""(N, classes): pixels of each class in each region."""
VALIDATED = 256
"""Validation regions at most: they are looked at again and again."""


def of_contexts(crops: RegionSet, names: Sequence[str]) -> RegionSet:
    """Regions of sources of these contexts; all where none is named. `UserError` where there is none."""
    if not names:
        return crops
    of = crops.images.contexts
    known = sorted(set(of.values()))
    if unknown := [name for name in names if name not in known]:
        said = f"it has {', '.join(known)}" if known else "only prepared data tells contexts"
        raise UserError(
            f"evaluation.downstream.contexts: {unknown[0]} is none of {crops.images.where}: {said}"
        )
    return crops.part(np.array([of[region.source] in names for region in crops.regions], bool))


def set_apart(real: RegionSet, settings: Downstream) -> tuple[RegionSet, RegionSet | None]:
    """Real regions to learn from, and validation regions of other sources, where anything is chosen by them.

    `UserError` where there are fewer than five sources.
    """
    if not settings.chooses:
        return real, None
    names = sorted({region.source for region in real.regions})
    count = min(settings.validation_images, len(names) // 5)
    if not count:
        raise UserError(
            f"{real.images.where}: {len(names)} labelled sources are too few to set some apart for "
            "validation: one of evaluation.downstream.shares, and stops=1, leave nothing to choose"
        )
    order = np.random.default_rng(0).permutation(len(names))[:count]
    inside = np.isin([region.source for region in real.regions], np.array(names)[order])
    return real.part(~inside), real.part(inside).drawn(VALIDATED)


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


def name_of(name: str, crops: RegionSet) -> str:
    return f"{crops.images.where} ({name})"


def common_labels(sets: dict[str, RegionSet], pixels: dict[str, Pixels]) -> Labels:
    """Names of the classes as one of the sets tells them, else numbers."""
    highest = {name: int(np.flatnonzero(those.sum(axis=0)).max()) for name, those in pixels.items()}
    told = [crops.images.labels for crops in sets.values() if crops.images.labels is not None]
    if not told:
        names = (f"class {k}" for k in range(1, max(highest.values()) + 1))
        return Labels(("unknown", *names))
    for name, crops in sets.items():
        if highest[name] >= len(told[0]):
            known = f"ids 0 to {len(told[0]) - 1}"
            raise UserError(f"{name_of(name, crops)} has class id {highest[name]}; the classes have {known}")
    return told[0]
