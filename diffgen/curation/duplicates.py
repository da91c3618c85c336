"""Pictures that are all but the same as an earlier one of the set."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diffgen.evaluation.patterns import TURNS, Patterns, turned

BLOCK = 512
"""Pictures that are compared with all earlier ones at once."""


def earlier_likes(pictures: Patterns, limit: float) -> list[NDArray[np.intp]]:
    """For each picture the earlier ones whose correlation with it, in any flip and turn, reaches `limit`."""
    found: list[NDArray[np.intp]] = []
    for start in range(0, len(pictures), BLOCK):
        rows = pictures[start : start + BLOCK]
        before = pictures[: start + len(rows)]
        best = np.max([np.abs(rows @ turned(before, turn).T) for turn in range(TURNS)], axis=0)
        found += [np.flatnonzero(best[k, : start + k] >= limit) for k in range(len(rows))]
    return found


def first_alike(likes: Sequence[NDArray[np.intp]], kept: NDArray[np.bool_]) -> NDArray[np.intp]:
    """(N,): the first kept picture that each one repeats; −1 for none.

    `kept` (N,): pictures that nothing else speaks against. A picture that repeats one that is left out is
    itself the first.
    """
    of = np.full(len(likes), -1, np.intp)
    for number, earlier in enumerate(likes):
        there = [int(k) for k in earlier if kept[k] and of[k] < 0]
        if kept[number] and there:
            of[number] = there[0]
    return of
