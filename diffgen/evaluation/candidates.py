"""Which training pictures share points with a picture: an inverted file of their descriptors, and votes.

A descriptor is looked for only among those of its own cells (of a Voronoi partition whose centres are
descriptors of the training set, evenly drawn), where it is compared with all of them. Each of its nearest
ones votes for its picture with how much nearer it is than the next after them (LNBNN; McCann and Lowe, 2012),
so a blob that is everywhere votes for none. Nothing is random.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffgen.evaluation.local_features import LocalFeatures

PROBED = 4
"""Cells that a descriptor is looked for in."""
NEAREST = 4
"""Of a descriptor, that vote."""
ROWS = 2**14


class InvertedFile:
    """The descriptors of a set of pictures, by cell."""

    def __init__(self, of: LocalFeatures) -> None:
        points = torch.from_numpy(of.descriptors)
        cells = max(1, int(len(points) ** 0.5))  # looking for the cell, and in it, cost the same
        self.centres = points[torch.linspace(0, max(0, len(points) - 1), cells).long()]
        where = torch.cat([(part @ self.centres.T).argmax(dim=1) for part in torch.split(points, ROWS)])
        order = where.argsort(stable=True)
        self.ends = torch.bincount(where, minlength=cells).cumsum(0).tolist()
        self.points = points[order]
        self.pictures = torch.from_numpy(of.pictures)[order]
        self.size = len(of)

    def votes(self, of: LocalFeatures, pictures: range) -> NDArray[np.float32]:
        """(n, N): votes of each of some pictures for each picture of the file."""
        rows = slice(int(of.starts[pictures.start]), int(of.starts[pictures.stop]))
        points = torch.from_numpy(of.descriptors[rows])
        owners = torch.from_numpy(of.pictures[rows]) - pictures.start
        found = torch.zeros(len(pictures) * self.size)
        if not len(points) or not len(self.points):
            return found.view(len(pictures), -1).numpy()
        likeness, whose = self._nearest(points)
        weights = (likeness[:, :-1] - likeness[:, -1:]).clamp(min=0)
        for rank in range(NEAREST):  # one vote of a point for a picture
            twice = (whose[:, rank : rank + 1] == whose[:, :rank]).any(dim=1)
            weights[:, rank][twice | (whose[:, rank] < 0)] = 0
        places = owners[:, None] * self.size + whose[:, :-1].clamp(min=0)
        found.index_add_(0, places.flatten(), weights.flatten())
        return found.view(len(pictures), -1).numpy()

    def _nearest(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Of each point, likeness and picture (n, NEAREST + 1) of those nearest in its cells; -1: no more."""
        keep, probed = NEAREST + 1, min(PROBED, len(self.centres))
        cells = torch.cat(
            [(part @ self.centres.T).topk(probed, dim=1).indices for part in torch.split(points, ROWS)]
        )
        likeness = torch.full((len(points), probed, keep), -1.0)
        whose = torch.full((len(points), probed, keep), -1, dtype=torch.long)
        order = cells.flatten().argsort(stable=True)
        counts = torch.bincount(cells.flatten(), minlength=len(self.centres)).tolist()
        first = 0
        for cell, (asked, count) in enumerate(zip(torch.split(order, counts), counts, strict=True)):
            last = self.ends[cell]
            if count and last > first:
                rows, probe = asked // probed, asked % probed
                near = (points[rows] @ self.points[first:last].T).topk(min(keep, last - first), dim=1)
                size = near.values.shape[1]
                likeness[rows, probe, :size] = near.values
                whose[rows, probe, :size] = self.pictures[first:last][near.indices]
            first = last
        best = likeness.flatten(1).topk(keep, dim=1)
        return best.values, whose.flatten(1).gather(1, best.indices)
