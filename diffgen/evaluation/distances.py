"""Euclidean distances between sets of features, in blocks: exact, and never all at once in memory.

They come from |a|² + |b|² − 2ab of centred features in float64, one product of matrices per block: a tenth
of the time of scipy's or torch's `cdist`. Invariants: whatever is returned or decided was computed again from
differences wherever rounding could have changed it, so exact duplicates are at distance 0 and results are
those of the naive form. Distances have the unit of the features: none for those of a network.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from diffgen.errors import UserError

FeatureMatrix = NDArray[np.float64]
"""(N, d): a row per sample."""

BLOCK_BYTES = 2**26
"""Of squared distances at a time; a few arrays of this size are held."""
TIE = 1e-9
"""Distances and radii that differ by less of themselves are equal: far below float32, in which features are
made, and far above float64."""


class Nearest(NamedTuple):
    """The k nearest of some keys to each query, nearest first."""

    distances: NDArray[np.float64]
    """(Q, k)"""
    indices: NDArray[np.intp]
    """(Q, k): rows of the keys; of equally near ones the first."""


class BallCounts(NamedTuple):
    """Which queries lie in balls around keys."""

    balls: NDArray[np.intp]
    """(Q,): how many of the balls hold each query."""
    queries: NDArray[np.intp]
    """(K,): how many of the queries each ball holds."""


def checked(features: NDArray[Any], name: str, least: int = 1) -> FeatureMatrix:
    """Features (N, d) in float64. `UserError` where they are not finite, or fewer than `least`."""
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2:
        raise UserError(f"{name}: features have shape {features.shape}, not (samples, dimensions)")
    if len(features) < least:
        raise UserError(f"{name}: {len(features)} samples are too few, at least {least} are needed")
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise UserError(f"{name}: row {bad[0]} of the features holds NaN or Inf ({len(bad)} such rows)")
    return np.ascontiguousarray(features)


def nearest(
    queries: NDArray[Any], keys: NDArray[Any], k: int = 1, exclude_self: bool = False,
    apart: tuple[NDArray[np.intp], NDArray[np.intp]] | None = None,
) -> Nearest:  # fmt: skip
    """The k nearest keys (K, d) to each query (Q, d).

    `exclude_self`: row i of the queries is row i of the keys, and is not its own neighbour. `apart`: numbers
    (Q,), (K,) of groups; keys of a query's own group are left out. Raises `UserError` where fewer than k
    keys are left to a query.
    """
    if exclude_self:
        apart = np.arange(len(queries)), np.arange(len(keys))
    queries, keys = _pair(queries, keys)
    most = 0
    if apart is not None:
        groups, sizes = np.unique(apart[1], return_counts=True)
        most = int(sizes[np.isin(groups, apart[0])].max(initial=0))
    if k > len(keys) - most:
        others = " others" if apart is not None else ""
        raise UserError(f"{len(keys) - most}{others} of {len(keys)} samples are too few for {k} neighbours")
    x, y = torch.from_numpy(queries), torch.from_numpy(keys)
    of = None if apart is None else (torch.as_tensor(apart[0]), torch.as_tensor(apart[1]))
    distances, indices = np.empty((len(x), k)), np.empty((len(x), k), np.intp)
    for rows, squared, error in _blocks(x, y):
        if of is not None:
            squared.masked_fill_(of[0][rows, None] == of[1][None, :], torch.inf)
        distances[rows], indices[rows] = _smallest(squared, error, x[rows], y, k)
    return Nearest(distances, indices)


def kth_radii(x: NDArray[Any], k: int) -> NDArray[np.float64]:
    """(N,): ‖x_i − NN_k(x_i)‖, the distance of each row to its k-th nearest other row, as in eq. (10)."""
    return nearest(x, x, k, exclude_self=True).distances[:, -1]


def within(queries: NDArray[Any], keys: NDArray[Any], radii: NDArray[np.float64]) -> BallCounts:
    """Which balls with `radii` (K,) around keys (K, d) hold which queries (Q, d), where distance ≤ radius."""
    queries, keys = _pair(queries, keys)
    x, y = torch.from_numpy(queries), torch.from_numpy(keys)
    r = torch.from_numpy(np.asarray(radii, dtype=np.float64)) * (1 + TIE)
    balls, held = np.empty(len(x), np.intp), np.zeros(len(y), np.intp)
    limit = r.square()
    for rows, squared, error in _blocks(x, y):
        beyond = squared.sub_(limit)
        inside = beyond <= 0
        query, key = (beyond.abs_() <= error).nonzero(as_tuple=True)
        inside[query, key] = _by_differences(x[rows], y, query, key) <= r[key]
        balls[rows] = inside.sum(dim=1).numpy()
        held += inside.sum(dim=0).numpy()
    return BallCounts(balls, held)


class Pairs(NamedTuple):
    """Queries and the balls that hold them."""

    queries: NDArray[np.intp]
    keys: NDArray[np.intp]
    distances: NDArray[np.float64]
    step: int
    """Every `step`-th query was looked at."""


def pairs_within(queries: NDArray[Any], keys: NDArray[Any], radii: NDArray[np.float64], most: int) -> Pairs:
    """Pairs of query and key no farther from each other than the key's radius, up to rounding.

    About `most` of them: where there are more, every other query is left out, or more.
    """
    queries, keys = _pair(queries, keys)
    limit = torch.from_numpy(np.square(radii * (1 + TIE)))
    y, step = torch.from_numpy(keys), 1
    while True:
        x, found, held = torch.from_numpy(queries[::step]), list[Any](), 0
        for rows, squared, error in _blocks(x, y):
            query, key = (squared <= limit + error).nonzero(as_tuple=True)
            distances = squared[query, key].clamp(min=0).sqrt()
            found.append(((query + rows.start) * step, key, distances))
            held += len(query)
            if held > most:
                break
        if held <= most:
            columns = [torch.cat(column).numpy() for column in zip(*found, strict=True)]
            return Pairs(columns[0], columns[1], columns[2], step)
        step *= 2


def _pair(queries: NDArray[Any], keys: NDArray[Any]) -> tuple[FeatureMatrix, FeatureMatrix]:
    queries, keys = checked(queries, "first set"), checked(keys, "second set")
    if queries.shape[1] != keys.shape[1]:
        raise UserError(f"features of {queries.shape[1]} and {keys.shape[1]} dimensions have no distance")
    return queries, keys


def _blocks(x: torch.Tensor, y: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Rows of x, their squared distances (rows, K) to y, and (rows, 1) how far off these can be."""
    centre = y.mean(dim=0)
    y = y - centre
    of_y = y.square().sum(dim=1)
    # |fl(a·b) − a·b| ≤ d·u/(1 − d·u)·|a||b|; the norms and the sum are of the same kind, and 4 is safe.
    unit = 4 * (x.shape[1] + 4) * torch.finfo(x.dtype).eps
    size = max(1, BLOCK_BYTES // (8 * len(y)))
    for start in range(0, len(x), size):
        rows = slice(start, min(start + size, len(x)))
        block = x[rows] - centre
        of_x = block.square().sum(dim=1, keepdim=True)
        squared = torch.addmm(of_y, block, y.T, alpha=-2).add_(of_x)
        yield rows, squared, unit * (of_x + of_y.max())


def _smallest(
    squared: torch.Tensor, error: torch.Tensor, x: torch.Tensor, y: torch.Tensor, k: int
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Exact distances (rows, k) and indices of the smallest in each row of `squared`.

    What is as near as the k-th, up to the error of both, is computed again; of equal ones the first counts.
    """
    limit = squared.topk(k, dim=1, largest=False).values[:, -1:] + 2 * error
    row, column = (squared <= limit).nonzero(as_tuple=True)
    exact = _by_differences(x, y, row, column).numpy()
    order = np.lexsort((column.numpy(), exact, row.numpy()))
    first = np.searchsorted(row.numpy(), np.arange(len(x)))  # rows come in their order
    chosen = order[first[:, None] + np.arange(k)]
    return exact[chosen], column.numpy()[chosen]


def _by_differences(x: torch.Tensor, y: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    """(P,): ‖x_i − y_j‖ of P pairs, by differences."""
    found = torch.empty(len(i), dtype=x.dtype)
    size = max(1, BLOCK_BYTES // (8 * x.shape[1]))
    for start in range(0, len(i), size):
        part = slice(start, start + size)
        found[part] = (x[i[part]] - y[j[part]]).square_().sum(dim=1)
    np.sqrt(found.numpy(), out=found.numpy())  # rounded right everywhere; torch's is not on every CPU
    return found
