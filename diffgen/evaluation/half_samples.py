"""How much precision, recall, density and coverage vary with the sources of both sets: by random halves.

A bootstrap takes samples twice, which are then their own nearest neighbours, so no radius of it is right. In
halves of the sources of both sets radii and balls are found again. Distances are computed once: a ball of a
half reaches to one of the key's `NEAR` nearest, nearly always.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffgen.evaluation.bootstrap import Weights
from diffgen.evaluation.distances import TIE, nearest, pairs_within

NEAR = 32
"""Neighbours of a sample that are kept: of k = 3 in a half, the 32nd is passed in one case of 10⁷."""
MOST_PAIRS = 2**24
"""Pairs of query and ball that are held. Of more, every other query is left out, or more of them: the
interval gets wider by that, and never narrower."""


class Shares(NamedTuple):
    """Figures of each part, (B,)."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    density: NDArray[np.float64]
    coverage: NDArray[np.float64]


class _Side(NamedTuple):
    inside: NDArray[np.float64]
    balls: NDArray[np.float64]
    filled: NDArray[np.float64]


def of_parts(real: NDArray[Any], synthetic: NDArray[Any], weights: Sequence[Weights], k: int) -> Shares:
    """Of features (N, d) of two sets and rows of weights (B, N) that are 0 or 1 (`bootstrap.halved`,
    `left_out`)."""
    kept = [one > 0 for one in weights]
    around_real = _side(synthetic, real, kept[1], kept[0], k)
    around_synthetic = _side(real, synthetic, kept[0], kept[1], k)
    return Shares(around_real.inside, around_synthetic.inside, around_real.balls / k, around_real.filled)


def _side(
    queries: NDArray[Any],
    keys: NDArray[Any],
    of_queries: NDArray[np.bool_],
    of_keys: NDArray[np.bool_],
    k: int,
) -> _Side:
    """Shares of queries inside of a ball, mean number of balls that hold one, share of balls that hold
    one."""
    own = nearest(keys, keys, min(NEAR, len(keys) - 1), exclude_self=True)
    query, key, distance, step = pairs_within(queries, keys, own.distances[:, -1], MOST_PAIRS)
    found = np.empty((3, len(of_keys)))
    for row, (asked, there) in enumerate(zip(of_queries, of_keys, strict=True)):
        asked = asked & (np.arange(len(asked)) % step == 0)
        rank = there[own.indices].cumsum(axis=1)
        last = np.where(rank[:, -1] >= k, (rank >= k).argmax(axis=1), -1)
        radii = own.distances[np.arange(len(keys)), last] * (1 + TIE)
        inside = asked[query] & there[key] & (distance <= radii[key])
        balls = np.bincount(query[inside], minlength=len(queries))[asked]
        held = np.bincount(key[inside], minlength=len(keys))[there]
        found[:, row] = (balls > 0).mean(), balls.mean(), (held > 0).mean()
    return _Side(*found)
