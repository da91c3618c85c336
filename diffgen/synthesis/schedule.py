"""Which open patches the next lease holds: a pure function, so that its policy is a table of cases.

A lease holds patches of one model and one shape, from as many images as it takes to fill its
micro-batches; what would leave one half empty waits as long as more is to come.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

AHEAD = 2
"""Leases' worth of open forwards per worker, below which another image is begun."""
LAST_LEASES = 4
"""Leases' worth of open forwards per worker, below which the last images are painted side by side."""
WELL_FILLED = 0.95
"""Share of a micro-batch's rows; less is not handed out while more is to come."""


@dataclass(frozen=True)
class OpenPatches:
    """Open patches of one image, all of one shape."""

    image: int
    model: str
    """`mask` or `image`."""
    shape: tuple[int, int]
    forwards: Mapping[int, int]
    """Of each patch."""
    base: int
    """Patch side whose forwards are the unit of cost."""
    batch: int
    """Forwards that fill the micro-batches of all networks that these patches go through."""
    fraction: float = 0.0
    """How much of the image is done."""

    @property
    def total(self) -> int:
        return sum(self.forwards.values())


def choose(
    candidates: Sequence[OpenPatches], budget: int, workers: int, todo: int, room: int, busy: Set[int]
) -> list[tuple[int, int]]:
    """(image, patch) of the next lease: the first patches that fill micro-batches, with others like them.

    `budget` is in forwards of the base patch. `todo` images are not begun yet, `room` is how many of them
    could be, and other workers hold patches of the images `busy`. Empty where another image has to be begun,
    or, without room, where the worker should wait: what is held elsewhere will open more.
    """
    if not todo and sum(patches.total for patches in candidates) < LAST_LEASES * budget * workers:
        # Finished one after the other, the last images would leave too few patches for all workers.
        candidates = sorted(candidates, key=lambda patches: patches.fraction)
    groups: dict[tuple[str, tuple[int, int]], list[OpenPatches]] = {}
    for patches in candidates:
        groups.setdefault((patches.model, patches.shape), []).append(patches)
    choices = [_fill(alike, budget, workers) for alike in groups.values()]
    for chosen, well in choices:
        if well:
            return chosen
    oldest = {patches.image for patches in next(iter(groups.values()), [])}
    return [] if not choices or min(todo, room) > 0 or busy - oldest else choices[0][0]


def _fill(alike: Sequence[OpenPatches], budget: int, workers: int) -> tuple[list[tuple[int, int]], bool]:
    """A fair share of patches, as many as fill micro-batches best, and whether that is well."""
    batch = max(patches.batch for patches in alike)
    there = sum(patches.total for patches in alike)
    height, width = alike[0].shape
    most = max(1, budget * alike[0].base ** 2 // (height * width))
    target = max(batch, min(most, there // workers) // batch * batch)
    chosen: list[tuple[int, int]] = []
    total, best, length = 0, 0.0, 0
    for patches in alike:
        for number, forwards in patches.forwards.items():
            if total + forwards > target and chosen:
                continue
            chosen.append((patches.image, number))
            total += forwards
            share = total / (-(-total // batch) * batch)
            if share >= best:
                best, length = share, len(chosen)
        if total >= target:
            break
    return chosen[:length], best >= WELL_FILLED or there >= most
