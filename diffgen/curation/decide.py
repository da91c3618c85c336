"""From figures to decisions: which images are kept, why others are not, and which maps get more images.

Pure functions. Invariants: the fate of an image depends on it and on earlier images of the set alone, never
on later ones, so a set that grows changes no decision; every image left out has its reasons in plain words.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

MOST = 20
"""Images that the hardest label map gets (FreeMask)."""
SURPLUS = "not needed: there are as many as were asked for"
KINDS = {
    "copies": "copies of training images",
    "duplicates": "repeat an earlier image",
    "agreement": "label map and image disagree",
    "density": "unlike real images",
    "failed": "could not be made",
    "surplus": "not needed",
}
"""What counts are called, in the order in which reasons are given."""


@dataclass(frozen=True)
class Figures:
    """What is known of one image; None where it was not asked."""

    key: str
    disagreement: float | None = None
    """Share of its known pixels that contradict it."""
    loss: float | None = None
    """Mean loss of its known pixels."""
    density: float | None = None
    """Mean over its regions."""
    copy_ncc: float | None = None
    copy_of: str | None = None
    """Training image that it is most like."""
    copied: bool = False
    duplicate_of: str | None = None
    """Key of the earlier image that it repeats."""
    failed: str | None = None


@dataclass(frozen=True)
class Decision:
    """Of one image: it is kept, or there are reasons."""

    reasons: tuple[tuple[str, str], ...] = ()
    """Kind and words."""

    @property
    def keep(self) -> bool:
        return not self.reasons

    @property
    def words(self) -> str | None:
        return "; ".join(words for _, words in self.reasons) or None


def decide(of: Figures, most_wrong: float, least_density: float) -> Decision:
    """By the figures of one image."""
    if of.failed is not None:
        return Decision((("failed", f"could not be made: {of.failed}"),))
    found = []
    if of.copied:
        found.append(("copies", f"the same as training image {of.copy_of}"))
    if of.duplicate_of is not None:
        found.append(("duplicates", f"the same as {of.duplicate_of}, an earlier one"))
    if of.disagreement is not None and of.disagreement > most_wrong:
        found.append((
            "agreement",
            f"{of.disagreement:.0%} of its known pixels contradict its label map, more than {most_wrong:.0%}",
        ))  # fmt: skip
    if of.density is not None and of.density < least_density:
        found.append((
            "density",
            f"unlike real images: a feature density of {of.density:.2f}, held-out ones {least_density:.2f}",
        ))  # fmt: skip
    return Decision(tuple(found))


def only_first(decisions: Sequence[Decision], wanted: int | None) -> list[Decision]:
    """The same, but of those kept only the first `wanted`."""
    left, found = len(decisions) if wanted is None else wanted, []
    for one in decisions:
        surplus = one.keep and left == 0
        found.append(replace(one, reasons=(("surplus", SURPLUS),)) if surplus else one)
        left -= one.keep and not surplus
    return found


def counts(decisions: Sequence[Decision]) -> dict[str, int]:
    """How many there are of each kind of reason; an image may have several."""
    found = Counter(kind for one in decisions for kind in {kind for kind, _ in one.reasons})
    return {kind: found[kind] for kind in KINDS if found[kind]}


def hardness(shares: NDArray[np.float64], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,): mean over the known pixels of label maps of their class's loss on real images.

    `shares` (N, classes) of pixels, `means` (classes,). A class that real images lack is as hard as the
    hardest one.
    """
    known, losses = shares[:, 1:], np.where(np.isnan(means), np.nanmax(means), means)[1:]
    total = known.sum(axis=1)
    return np.divide(known @ losses, total, out=np.zeros(len(shares)), where=total > 0)


def weights(hard: NDArray[np.float64], maps: Sequence[str]) -> NDArray[np.int64]:
    """(N,): images that each label map should get: min(1 + round(20 i / N), 20) for the map of rank i of N.

    FreeMask's resampling; `maps` says which of the images have one label map. Rank 0 is the easiest.
    """
    of = dict(zip(maps, hard.tolist(), strict=True))
    order = sorted(of, key=lambda name: (of[name], name))
    images = {name: min(1 + round(MOST * rank / len(order)), MOST) for rank, name in enumerate(order)}
    return np.array([images[name] for name in maps], np.int64)
