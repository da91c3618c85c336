"""Copies that are shifted, cut, enlarged, turned, mirrored, stained or coded otherwise: by points and pixels.

For each picture, as it is and mirrored: the training pictures with most votes of its points (`candidates`),
each laid over it as its points say (`alignment`), and the one that agrees with it in most blocks. No network
has a part in it, and nothing is random.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffgen.evaluation.alignment import Alignment, aligned, banded, matched
from diffgen.evaluation.candidates import InvertedFile
from diffgen.evaluation.local_features import LocalFeatures

CANDIDATES = 8
"""Training pictures that each picture is compared with, mirrored ones among them."""
SAME = 14
"""Blocks of 64 that agree, from which two pictures show the same tissue."""
ROWS = 256  # pictures at a time
NOTHING = Alignment(0, 0.0, np.zeros((2, 3)))


class _Best(NamedTuple):
    """Of one picture."""

    alignment: Alignment
    row: int
    mirrored: bool


@dataclass(frozen=True)
class Found:
    """Of each picture, the training picture that agrees with it in most blocks."""

    agreeing: NDArray[np.intp]
    """(N,): blocks of 64."""
    rows: NDArray[np.intp]
    """(N,): row of the training picture; 0 where none was compared."""
    maps: NDArray[np.float64]
    """(N, 2, 3): from its pixels to the picture's, of `SIDE` pixels both."""
    mirrored: NDArray[np.bool_]
    """(N,): whether it is the mirrored picture that agrees."""

    @property
    def same(self) -> NDArray[np.bool_]:
        """(N,): pictures that show the same tissue as a training picture."""
        return self.agreeing >= SAME


def search(
    pictures: LocalFeatures, training: LocalFeatures, done: Callable[[int], object] = lambda _: None
) -> Found:
    """The training picture that each picture is most likely a copy of; `done` counts the pictures."""
    file, views = InvertedFile(training), (pictures, pictures.mirrored())
    best = list[_Best]()

    def compared(row: int, candidates: Sequence[int]) -> _Best:
        bands = [banded(view.greys[row]) for view in views]
        found = _Best(NOTHING, 0, False)
        for side, other in (divmod(k, len(training)) for k in candidates):
            over = matched(views[side], row, training, other)
            if over is not None:
                one = aligned(bands[side], training.greys[other], over)
                if one[:2] > found.alignment[:2]:
                    found = _Best(one, other, side == 1)
        return found

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # most of it is outside of Python's lock
        for start in range(0, len(pictures), ROWS):
            block = range(start, min(start + ROWS, len(pictures)))
            votes = np.concatenate([file.votes(view, block) for view in views], axis=1)
            order = np.argsort(-votes, axis=1, kind="stable")[:, :CANDIDATES]
            given = [near[got[near] > 0].tolist() for near, got in zip(order, votes, strict=True)]
            for one in pool.map(compared, block, given):
                best.append(one)
                done(1)
    return Found(
        agreeing=np.array([one.alignment.agreeing for one in best], np.intp),
        rows=np.array([one.row for one in best], np.intp),
        maps=np.array([one.alignment.map for one in best], np.float64).reshape(-1, 2, 3),
        mirrored=np.array([one.mirrored for one in best], np.bool_),
    )
