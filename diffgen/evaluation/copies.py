"""Whether pictures are copies of training pictures, by their pixels: no network has a part in it.

A picture's scores are the largest |NCC| of 32 × 32 grey values with any training picture, in any of the 8
flips and quarter turns, and whether a training picture shows the same tissue in any shift (`shifts`).
Held-out real pictures have theirs beside it.

Found: exact copies, flipped or turned, recoloured, brightened or inverted, recompressed, blurred, enlarged;
of crops that were shifted by up to a tenth of the side both ways, nearly all.
Not found: copies of a smaller part, shifted crops that were also enlarged, and pictures without contrast.
Two pictures of the same coarse pattern have a large NCC by chance, but are not taken for shifted ones.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom

from diffgen.errors import UserError
from diffgen.evaluation.bootstrap import RESAMPLES, Estimate, of_sources, resampled, share_of
from diffgen.evaluation.patterns import TURNS, Fingerprints, Patterns, same_pixels, turned
from diffgen.evaluation.shifts import peaks

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


@dataclass(frozen=True)
class Matches:
    """Of each picture, the training picture that is most like it."""

    ncc: NDArray[np.float64]
    """(N,): largest |NCC|, from 0 to 1."""
    indices: NDArray[np.intp]
    """(N,): row of that training picture; of a shifted copy, of what it is a copy of."""
    turns: NDArray[np.intp]
    """(N,): how the training picture is turned for the largest |NCC|, as `turned` numbers it."""
    shifted: NDArray[np.bool_]
    """(N,): whether it shows the same tissue, in any shift, as a training picture."""
    flat: NDArray[np.bool_]
    """(N,): pictures without contrast, of which nothing can be said; their ncc is 0."""

    @property
    def same(self) -> NDArray[np.bool_]:
        """(N,): pictures that are the same as a training picture to the eye, shifted or not."""
        return (self.ncc > SAME) | self.shifted

    def certain(self, chance: float = CHANCE) -> bool:
        """Whether some are the same for sure: one by the tissue, or more by their NCC than `chance` gives."""
        by_chance = binom.sf(int(self.same.sum()) - 1, len(self.ncc), chance)
        return bool(self.shifted.any() or by_chance < UNLIKELY)


@dataclass(frozen=True)
class Copies:
    """Synthetic pictures beside held-out real ones."""

    synthetic: Matches
    held_out: Matches | None
    threshold: float | None
    """The 99 % quantile of the held-out pictures' NCC."""
    above: Estimate | None
    """Share of synthetic pictures above it; `expected` if they are like held-out ones."""
    expected: float | None
    same: Estimate
    """Share of synthetic pictures that are the same as a training picture to the eye."""
    same_held_out: float | None
    """The same of held-out pictures: where it is not 0, these are training images, or much alike."""

    @property
    def certain(self) -> bool:
        """Whether synthetic pictures are copies, and not only as much alike as held-out ones are."""
        held_out = 0.0 if self.held_out is None else float((self.held_out.ncc > SAME).mean())
        return self.synthetic.certain(max(CHANCE, held_out))


def matches(pictures: Patterns, training: Patterns) -> Matches:
    """The training picture that is most like each picture, in any flip and turn, inverted or not.

    `UserError` where there is no training picture.
    """
    if not len(training):
        raise UserError("no training pictures to look for copies of")
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
    score = best.double().clamp(0, 1).numpy()
    over_shifts = peaks(pictures, training)
    shifted = over_shifts.shifted
    return Matches(
        ncc=score,
        indices=np.where(shifted & (score <= SAME), over_shifts.rows, index.numpy()),
        turns=turn.numpy(),
        shifted=shifted,
        flat=np.asarray(~pictures.any(axis=1)),
    )


def evaluate_copies(
    synthetic: Patterns, training: Patterns, held_out: Patterns | None,
    synthetic_sources: NDArray[np.intp], *, count: int = RESAMPLES, seed: int = 0,
) -> Copies:  # fmt: skip
    """Synthetic pictures against the training pictures, with held-out real pictures as the null.

    All as `patterns` gives them, of crops of one size in µm. Intervals are over `synthetic_sources` (N,).
    Raises `UserError` for sets that are empty or of one source.
    """
    sources = of_sources(synthetic_sources, len(synthetic), "synthetic")
    drawn = matches(synthetic, training)
    real = None if held_out is None else matches(held_out, training)
    (weights,) = resampled([sources], count, seed)
    threshold = 1.0 if real is None else float(np.quantile(real.ncc, QUANTILE))

    return Copies(
        synthetic=drawn,
        held_out=real,
        threshold=None if real is None else threshold,
        above=None if real is None else share_of(drawn.ncc > threshold, weights),
        expected=None if real is None else float((real.ncc > threshold).mean()),
        same=share_of(drawn.same, weights),
        same_held_out=None if real is None else float(real.same.mean()),
    )


def leaked(held_out: Fingerprints, training: Fingerprints, found: Matches | None) -> list[int]:
    """Held-out pictures that are training pictures: by their very pixels, or by their `found` matches.

    Matches count where one is certain or others have the very pixels: single ones may be chance.
    """
    inside = same_pixels(held_out, training)
    if found is not None and (inside.any() or found.certain()):
        inside = inside | found.same
    return [int(row) for row in np.flatnonzero(inside)]
