"""Whether pictures are copies of training pictures, by their pixels: no network has a part in it.

A picture's scores are the largest |NCC| of 32 × 32 grey values with any training picture, in any of the 8
flips and quarter turns, and whether a training picture shows the same tissue, wherever it lies in it
(`copy_search`). Held-out real pictures have theirs beside it.

What is found of copies that are cut, shifted, turned, enlarged, stained and coded otherwise is measured by
`benchmarks/planted_copies.py`: docs/evaluation.md. Two pictures of one coarse pattern have a large NCC by
chance, but are not taken for the same tissue.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom

from diffgen.errors import UserError
from diffgen.evaluation.bootstrap import Estimate, of_sources
from diffgen.evaluation.candidates import InvertedFile
from diffgen.evaluation.copy_search import SearchedIn, TissueMatches, search
from diffgen.evaluation.local_features import local_features
from diffgen.evaluation.patterns import TURNS, Fingerprints, Patterns, same_pixels, turned
from diffgen.evaluation.shares import share

QUANTILE = 0.99
"""Of held-out pictures' scores: what is above is as near to a training picture as real ones hardly are."""
SAME = 0.95
"""NCC from which two pictures are the same to the eye. On crops of real tissue (NuInsSeg) of 128 and 256 px
held-out crops reached it in 0.06 % and none, copies in JPEG of quality 30 in 95 % and 97 %; of 64 px the test
is weak: 0.9 % and 52 %."""
CHANCE, UNLIKELY = 0.01, 0.01
"""Share of real pictures whose NCC is above 0.95 by chance, as much as was ever measured (64 px). A number of
such pictures that has less than this probability is no chance."""
BLOCK_BYTES = 2**26

Done = Callable[[int], object]


def _no_bar(_: int) -> None: ...


@dataclass(frozen=True)
class Matches:
    """Of each picture, the training picture that is most like it."""

    ncc: NDArray[np.float64]
    """(N,): largest |NCC|, from 0 to 1; 0 for a picture without contrast, of which nothing can be said."""
    nearest: NDArray[np.intp]
    """(N,): row of that training picture."""
    found: TissueMatches
    """By points and pixels: the training picture that shows the same tissue, if one does."""

    @property
    def tissue(self) -> NDArray[np.bool_]:
        """(N,): pictures that show the same tissue as a training picture."""
        return self.found.same

    @property
    def same(self) -> NDArray[np.bool_]:
        """(N,): pictures that are the same as a training picture to the eye, or show the same tissue."""
        return (self.ncc > SAME) | self.tissue

    @property
    def indices(self) -> NDArray[np.intp]:
        """(N,): row of the training picture of the same tissue, else of the largest |NCC|."""
        return np.where(self.tissue, self.found.rows, self.nearest)

    def certain(self, chance: float = CHANCE) -> bool:
        """Whether some are the same for sure: one by the tissue, or more by their NCC than `chance` gives."""
        by_chance = binom.sf(int(self.same.sum()) - 1, len(self.ncc), chance)
        return bool(self.tissue.any() or by_chance < UNLIKELY)


@dataclass(frozen=True)
class Copies:
    """Synthetic pictures beside held-out real ones."""

    synthetic: Matches
    held_out: Matches | None
    of_held_out: Matches | None
    """Synthetic pictures against the held-out ones, which a generator should not have seen either."""
    threshold: float | None
    """The 99 % quantile of the held-out pictures' NCC."""
    above: Estimate | None
    """Share of synthetic pictures above it; `expected` if they are like held-out ones."""
    expected: float | None
    same: Estimate
    """Share of synthetic pictures that are the same as a training picture to the eye, or of its tissue."""
    same_held_out: float | None
    """The same of held-out pictures: where it is not 0, these are training images, or much alike."""

    @property
    def certain(self) -> bool:
        """Whether synthetic pictures are copies, and not only as much alike as held-out ones are."""
        held_out = 0.0 if self.held_out is None else float((self.held_out.ncc > SAME).mean())
        return self.synthetic.certain(max(CHANCE, held_out))


def searched_in(training: Fingerprints, done: Done = _no_bar) -> SearchedIn:
    """Training pictures, made ready to look for copies of them. `UserError` where there is none."""
    if training.greys is None or not len(training):
        raise UserError("no training pictures to look for copies of")
    features = local_features(training.greys, done)
    return SearchedIn(features, InvertedFile(features))


def matches(
    pictures: Fingerprints, training: Fingerprints, of: SearchedIn | None = None, done: Done = _no_bar
) -> Matches:
    """The training picture that is most like each picture; `of`: what `searched_in` made of them before.

    `done` counts each picture twice. `UserError` where there is no training picture, or they are too small.
    """
    of = of or searched_in(training)
    assert pictures.patterns is not None
    assert pictures.greys is not None
    assert training.patterns is not None
    ncc, nearest, turns = largest_ncc(pictures.patterns, training.patterns)
    guesses = list(zip(nearest.tolist(), turns.tolist(), strict=True))
    features = local_features(pictures.greys, done)
    return Matches(ncc, nearest, search(features, of, guesses, done))


def largest_ncc(
    pictures: Patterns, training: Patterns
) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.intp]]:
    """Of each picture: its largest |NCC| with a training picture in any flip and turn, which one, and how."""
    x, best = torch.from_numpy(pictures), torch.full((len(pictures),), -1.0)
    index, turn = torch.zeros(len(pictures), dtype=torch.long), torch.zeros(len(pictures), dtype=torch.long)
    size = max(1, BLOCK_BYTES // (4 * len(training)))
    for number in range(TURNS):
        keys = torch.from_numpy(turned(training, number)).T
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            ncc, where = (x[rows] @ keys).abs_().max(dim=1)
            better = ncc > best[rows]
            best[rows] = torch.where(better, ncc, best[rows])
            index[rows] = torch.where(better, where, index[rows])
            turn[rows] = torch.where(better, number, turn[rows])
    return best.double().clamp(0, 1).numpy(), index.numpy(), turn.numpy()


def evaluate_copies(
    synthetic: Fingerprints, training: Fingerprints, held_out: Fingerprints | None,
    synthetic_sources: NDArray[np.intp], done: Done = _no_bar,
) -> Copies:  # fmt: skip
    """Synthetic pictures against the training pictures, with held-out real pictures as the null.

    All are of crops of one size in µm and none under 32 px. Intervals are over `synthetic_sources` (N,).
    `done` is told of each picture that is worked on (`work` of them). Raises `UserError` for sets that are
    empty or of one source.
    """
    sources = of_sources(synthetic_sources, len(synthetic), "synthetic")
    of = searched_in(training, done)
    drawn = matches(synthetic, training, of, done)
    real = None if held_out is None else matches(held_out, training, of, done)
    threshold = 1.0 if real is None else float(np.quantile(real.ncc, QUANTILE))
    return Copies(
        synthetic=drawn,
        held_out=real,
        of_held_out=None if held_out is None else matches(synthetic, held_out, done=done),
        threshold=None if real is None else threshold,
        above=None if real is None else share(drawn.ncc > threshold, sources),
        expected=None if real is None else float((real.ncc > threshold).mean()),
        same=share(drawn.same, sources),
        same_held_out=None if real is None else float(real.same.mean()),
    )


def work(synthetic: int, training: int, held_out: int) -> int:
    """How often `evaluate_copies` says that a picture is done."""
    return training + 2 * synthetic + (2 * held_out + 2 * synthetic if held_out else 0)


def leaked(held_out: Fingerprints, training: Fingerprints, found: Matches | None) -> NDArray[np.bool_]:
    """(M,): held-out pictures that are training pictures: by their very pixels, or by their `found` matches.

    Matches count where one is certain or others have the very pixels: single ones may be chance.
    """
    inside = same_pixels(held_out, training)
    if found is not None and (inside.any() or found.certain()):
        inside = inside | found.same
    return inside
