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
import torch
from numpy.typing import NDArray

from diffgen.evaluation.alignment import Alignment, aligned, banded, matched, peak, quarters
from diffgen.evaluation.candidates import InvertedFile
from diffgen.evaluation.local_features import LocalFeatures

CANDIDATES = 8
"""Training pictures that each picture is compared with, mirrored ones among them."""
ALIKE, SURE = 8, 11.0
"""Two pictures show the same tissue where so many blocks of 64 agree, by so many deviations better than
shifted;"""
MANY, PEAK = 18, 6.0
"""or where so many agree, by fewer deviations, as they do under noise and codecs;"""
PASTED = 8
"""or where so many side by side are nearly equal, whatever the rest is. Different tissue
(EBHI-Seg, 128 px) had 9.8 deviations at most in 11,790 regions, and in 6,072 15 blocks and 5 equal ones."""
ROWS = 256  # pictures at a time
NOTHING = Alignment(0, 0, 0.0, np.zeros((2, 3)))

Guess = tuple[int, int]
"""A training picture, and how it is turned for it to lie in place, as `patterns.turned` numbers it."""


class _Best(NamedTuple):
    """Of one picture."""

    alignment: Alignment
    row: int
    mirrored: bool
    peak: float


@dataclass(frozen=True)
class TissueMatches:
    """Of each picture, the training picture that agrees with it in most blocks."""

    agreeing: NDArray[np.intp]
    """(N,): blocks of 64."""
    equal: NDArray[np.intp]
    """(N,): those of the largest piece that does so nearly pixel by pixel."""
    ncc: NDArray[np.float64]
    """(N,): mean correlation of the blocks that have a pattern in both."""
    rows: NDArray[np.intp]
    """(N,): row of the training picture; 0 where none was compared."""
    maps: NDArray[np.float64]
    """(N, 2, 3): from its pixels to the picture's, of `SIDE` pixels both."""
    mirrored: NDArray[np.bool_]
    """(N,): whether it is the mirrored picture that agrees."""
    peaks: NDArray[np.float64]
    """(N,): by how many deviations they agree better so than shifted; 0 where too few blocks agree."""

    @property
    def same(self) -> NDArray[np.bool_]:
        """(N,): pictures that show the same tissue as a training picture."""
        sure = (self.agreeing >= ALIKE) & (self.peaks >= SURE)
        many = (self.agreeing >= MANY) & (self.peaks >= PEAK)
        return sure | many | (self.equal >= PASTED)


@dataclass(frozen=True)
class SearchedIn:
    """Pictures in which copies are looked for."""

    features: LocalFeatures
    file: InvertedFile


def search(
    pictures: LocalFeatures, of: SearchedIn, guesses: Sequence[Guess] = (),
    done: Callable[[int], object] = lambda _: None,
) -> TissueMatches:  # fmt: skip
    """The training picture that each picture is most likely a copy of; `done` counts the pictures.

    `guesses`, one a picture where there are any, are looked at beside what the points say.
    """
    training, views = of.features, (pictures, pictures.mirrored())
    best = list[_Best]()

    def compared(row: int, candidates: Sequence[int]) -> _Best:
        bands = [banded(view.greys[row]) for view in views]
        asked = [divmod(k, len(training)) for k in candidates]
        maps = [(side, other, matched(views[side], row, training, other)) for side, other in asked]
        if guesses:
            other, turn = guesses[row]
            maps.append((turn // 4, other, quarters(-turn if turn >= 4 else turn)))
        found, laid = _Best(NOTHING, 0, False, 0.0), None
        for side, other, over in maps:
            if over is not None:
                one = aligned(bands[side], training.greys[other], over)
                if one.score > found.alignment.score:
                    found, laid = _Best(one, other, side == 1, 0.0), over
        if laid is not None and found.alignment.agreeing >= ALIKE:
            sharp = peak(bands[found.mirrored], training.greys[found.row], laid)
            found = found._replace(peak=sharp)
        return found

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # most of it is outside of Python's lock
        for start in range(0, len(pictures), ROWS):
            block = range(start, min(start + ROWS, len(pictures)))
            votes = torch.cat([torch.from_numpy(of.file.votes(view, block)) for view in views], dim=1)
            most = votes.topk(min(CANDIDATES, votes.shape[1]), dim=1)
            given = [near[got > 0].tolist() for got, near in zip(*most, strict=True)]
            for one in pool.map(compared, block, given):
                best.append(one)
                done(1)
    return TissueMatches(
        agreeing=np.array([one.alignment.agreeing for one in best], np.intp),
        equal=np.array([one.alignment.equal for one in best], np.intp),
        ncc=np.array([one.alignment.ncc for one in best], np.float64),
        rows=np.array([one.row for one in best], np.intp),
        maps=np.array([one.alignment.map for one in best], np.float64).reshape(-1, 2, 3),
        peaks=np.array([one.peak for one in best], np.float64),
        mirrored=np.array([one.mirrored for one in best], np.bool_),
    )
