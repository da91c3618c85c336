"""Whether pictures are copies of training pictures, by their pixels: no network has a part in it.

Each picture is brought to 32 × 32 grey values, its mean taken off and its length made one, so that products
are normalised cross-correlations (NCC): 1 for the same pattern, whatever its brightness and contrast.
A picture's score is the largest |NCC| with any training picture in any of the 8 flips and quarter turns.
Held-out real pictures, which cannot be copies, have theirs beside it.

Found: exact copies, flipped or turned, recoloured, brightened or inverted, recompressed, blurred, enlarged.
Not found: copies of a part and shifted crops (half a pixel of the 32, a sixtieth of the side, hides most
of them), and of pictures without contrast. Two pictures of the same coarse pattern are taken for copies.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from diffgen.errors import UserError
from diffgen.evaluation.bootstrap import RESAMPLES, Estimate, estimate, mean_of, of_sources, resampled
from diffgen.labels import Picture

SIDE = 32
"""Of what is compared: coarse enough that compression and noise are averaged away."""
TURNS = 8
FLAT = 0.5
"""Grey levels of 255: pictures whose standard deviation is less have no pattern but that of rounding."""
QUANTILE = 0.99
"""Of held-out pictures' scores: what is above is as near to a training picture as real ones hardly are."""
SAME = 0.95
"""NCC from which two pictures are the same to the eye. On crops of real tissue (NuInsSeg) of 128 and 256 px
held-out crops reached it in 0.06 % and none, copies in JPEG of quality 30 in 95 % and 97 %; of 64 px the test
is weak: 0.9 % and 52 %."""
LUMINANCE = (0.299, 0.587, 0.114)
BLOCK_BYTES = 2**26

Patterns = NDArray[np.float32]
"""(N, 1024): grey pictures of mean 0 and length 1; rows of zeros for pictures without contrast."""


@dataclass(frozen=True)
class Matches:
    """Of each picture, the training picture that is most like it."""

    ncc: NDArray[np.float64]
    """(N,): largest |NCC|, from 0 to 1."""
    indices: NDArray[np.intp]
    """(N,): row of that training picture."""
    turns: NDArray[np.intp]
    """(N,): how the training picture is turned to match, as `turned` numbers it."""
    flat: NDArray[np.bool_]
    """(N,): pictures without contrast, of which nothing can be said; their ncc is 0."""


@dataclass(frozen=True)
class Copies:
    """Synthetic pictures beside held-out real ones."""

    synthetic: Matches
    held_out: Matches
    threshold: float
    """The 99 % quantile of the held-out pictures' NCC."""
    above: Estimate
    """Share of synthetic pictures above it; `expected` if they are like held-out ones."""
    expected: float
    same: Estimate
    """Share of synthetic pictures that are the same as a training picture to the eye, NCC > 0.95."""
    same_held_out: float
    """The same of held-out pictures: where it is not 0, the test is weak here (glass, or alike slides)."""


def patterns(pictures: Iterable[Picture]) -> Patterns:
    """What is compared of pictures (H, W, 3) uint8, each of any size from 32 pixels up: (N, 1024).

    Grey by luminance, then by averages over areas to 32 × 32. `UserError` for a smaller picture.
    """
    found = []
    weights = torch.tensor(LUMINANCE, dtype=torch.float64)
    for picture in pictures:
        if min(picture.shape[:2]) < SIDE:
            raise UserError(
                f"pictures of {picture.shape[1]}×{picture.shape[0]} pixels are too small for copies"
            )
        grey = torch.from_numpy(np.array(picture, dtype=np.float64)) @ weights
        small = F.interpolate(grey[None, None], (SIDE, SIDE), mode="area").flatten()
        small -= small.mean()
        spread = float(small.square().mean().sqrt())
        found.append(small / small.norm() if spread >= FLAT else torch.zeros_like(small))
    return torch.stack(found).float().numpy() if found else np.empty((0, SIDE**2), np.float32)


def turned(patterns: Patterns, turn: int) -> Patterns:
    """Patterns in one of the 8 flips and turns: `turn` % 4 quarter turns, after a flip if `turn` > 3."""
    square = patterns.reshape(-1, SIDE, SIDE)
    flipped = square[:, :, ::-1] if turn >= 4 else square
    return np.ascontiguousarray(np.rot90(flipped, turn % 4, axes=(1, 2))).reshape(len(patterns), -1)


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
    return Matches(
        ncc=best.double().clamp(0, 1).numpy(),
        indices=index.numpy(),
        turns=turn.numpy(),
        flat=np.asarray(~pictures.any(axis=1)),
    )


def evaluate_copies(
    synthetic: Patterns, training: Patterns, held_out: Patterns, synthetic_sources: NDArray[np.intp], *,
    count: int = RESAMPLES, seed: int = 0,
) -> Copies:  # fmt: skip
    """Synthetic pictures against the training pictures, with held-out real pictures as the null.

    All as `patterns` gives them, of crops of one size in µm. Intervals are over `synthetic_sources` (N,).
    Raises `UserError` for sets that are empty or of one source.
    """
    if not len(held_out):
        raise UserError("no held-out pictures to compare copies with")
    sources = of_sources(synthetic_sources, len(synthetic), "synthetic")
    drawn, real = matches(synthetic, training), matches(held_out, training)
    (weights,) = resampled([sources], count, seed)
    threshold = float(np.quantile(real.ncc, QUANTILE))

    def share(of: NDArray[np.bool_]) -> Estimate:
        return estimate(mean_of(of.astype(float), weights), centred=False)

    return Copies(
        synthetic=drawn,
        held_out=real,
        threshold=threshold,
        above=share(drawn.ncc > threshold),
        expected=float((real.ncc > threshold).mean()),
        same=share(drawn.ncc > SAME),
        same_held_out=float((real.ncc > SAME).mean()),
    )
