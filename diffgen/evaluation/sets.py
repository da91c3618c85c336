"""The sets of an evaluation: real regions that a generator learned from, held-out ones, and synthetic ones.

Invariants: all regions have one size and one scale; what is compared has one number of regions, drawn evenly
over sources; and no source is on both sides of a comparison of real regions with real ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from diffgen.config import Evaluation
from diffgen.errors import UserError
from diffgen.evaluation.images import Images, RegionSet, check_alike, open_images, splits
from diffgen.labels import Labels

LEAST = 20
"""Regions of a set, below which nothing is said of it."""
USUAL = 512
"""Side in pixels that is taken if none is given and regions may be so large, as in the paper."""


@dataclass(frozen=True)
class Searched:
    """Regions of a copy search, and how many there are in all."""

    training: RegionSet
    """They cover the images, and so may overlap: a copy may be of any part."""
    synthetic: RegionSet
    of_training: int
    of_synthetic: int
    too_small: int
    """Synthetic images without a region of that side, which are not looked at."""

    @property
    def left_out(self) -> bool:
        """Whether there is more than was looked at."""
        of = self.of_training, self.of_synthetic
        return of != (len(self.training), len(self.synthetic)) or self.too_small > 0


@dataclass(frozen=True)
class Sets:
    """Regions of one side in pixels."""

    training: RegionSet
    """Real, what the generator learned from: all that copies are looked for in."""
    held_out: RegionSet | None
    """Real, what it never saw, where that is known."""
    synthetic: RegionSet
    samples: int
    """Regions of each set in a comparison, at most."""
    searched: Searched
    """What copies are looked for in and among: more than is compared."""

    @property
    def named(self) -> dict[str, RegionSet | None]:
        return {"training": self.training, "held_out": self.held_out, "synthetic": self.synthetic}

    @property
    def side(self) -> int:
        return self.training.side

    @property
    def mpp(self) -> float | None:
        """µm per pixel."""
        return self.training.images.mpp or self.synthetic.images.mpp

    @property
    def labels(self) -> Labels | None:
        return self.training.images.labels or self.synthetic.images.labels

    @cached_property
    def halves(self) -> tuple[RegionSet, RegionSet]:
        """Real regions that synthetic ones are compared with, and others that show what is possible.

        The held-out set and the training set; without a held-out set, two halves of the sources.
        """
        if self.held_out is not None:
            return self.held_out, self.training
        names = [region.source for region in self.training.regions]
        _, groups = np.unique(names, return_inverse=True)
        if groups.max() == 0:  # blocks of the one source
            groups = self.training.groups
        first = np.random.default_rng(0).permutation(groups.max() + 1)[: (groups.max() + 1) // 2]
        inside = np.isin(groups, first)
        return self.training.part(inside), self.training.part(~inside)

    @cached_property
    def compared(self) -> tuple[RegionSet, RegionSet, RegionSet]:
        """Real, synthetic and other real regions, of one number."""
        real, other = self.halves
        number = min(self.samples, len(real), len(other), len(self.synthetic))
        return real.drawn(number), self.synthetic.drawn(number), other.drawn(number)


def make_sets(
    real: tuple[Images, Images | None], synthetic: str, settings: Evaluation, console: Console
) -> Sets:
    """Regions of `real_sets` and of what lies at `synthetic`; `UserError` where they cannot be compared."""
    training, kept = real
    drawn = open_images(synthetic, "train", settings.assume_mpp, console)
    for other in (drawn, *([kept] if kept else [])):
        check_alike(training, other)
    sets = [training, drawn, *([kept] if kept else [])]
    side = settings.side or min(USUAL, *(one.largest for one in sets))
    crops = [regions(one, side) for one in sets]
    for one in sets:
        if small := one.smaller_than(side):
            console.print(f"[yellow]{one.where}[/]: {small} images smaller than {side} px are left out")
    if known := next((one for one in sets if one.mpp), None):
        for one in sets:
            if not one.mpp:
                console.print(
                    f"[yellow]{one.where}[/] says no µm per pixel: {known.mpp:g}, that of {known.where}, is "
                    "assumed (--set evaluation.assume_mpp=…)"
                )
    cover = training.covering(side)
    return Sets(
        searched=Searched(
            training=cover.drawn(settings.training_samples),
            synthetic=crops[1].drawn(settings.copy_samples),
            of_training=len(cover),
            of_synthetic=len(crops[1]),
            too_small=drawn.smaller_than(side),
        ),
        training=crops[0].drawn(settings.training_samples),
        held_out=crops[2].drawn(settings.samples) if kept else None,
        synthetic=crops[1].drawn(settings.samples),
        samples=settings.samples,
    )


def real_sets(
    real: str, held_out: str | None, settings: Evaluation, console: Console
) -> tuple[Images, Images | None]:
    """Training images, and held-out ones where there are any."""
    training = open_images(real, "train", settings.assume_mpp, console)
    if held_out is not None:
        return training, open_images(held_out, "test", settings.assume_mpp, console)
    return training, open_images(real, "test") if splits(real) else None


def regions(images: Images, side: int) -> RegionSet:
    """All regions of a side; `UserError` where they are too few to say anything."""
    found = images.crops(side)
    if len(found) < LEAST:
        raise UserError(
            f"{images.where}: {len(found)} regions of {side}×{side} pixels are too few, at least {LEAST} are "
            f"needed; it has some of up to {images.largest} pixels: --set evaluation.side=…"
        )
    return found


def numbered(sets: Sequence[RegionSet]) -> list[NDArray[np.intp]]:
    """Numbers (N,) of the sources of each set, for a bootstrap; no two sets share one."""
    found, first = [], 0
    for crops in sets:
        found.append(crops.groups + first)
        first += int(crops.groups.max()) + 1
    return found
