"""What is compared of pictures when copies are looked for: checksums, small grey patterns, and grey pictures.

Invariants: a picture without contrast (glass) has neither, as any other is its copy; a pattern has mean 0 and
length 1, so that a product of two is their normalised cross-correlation (NCC).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from diffgen.errors import UserError
from diffgen.evaluation.local_features import Greys, grey
from diffgen.labels import Picture

SIDE = 32
"""Of what is compared: coarse enough that compression and noise are averaged away."""
TURNS = 8
FLAT = 0.5
"""Grey levels of 255: pictures whose standard deviation is less have no pattern but that of rounding."""
LUMINANCE = (0.299, 0.587, 0.114)

Patterns = NDArray[np.float32]
"""(N, 1024): grey pictures of mean 0 and length 1; rows of zeros for pictures without contrast."""


@dataclass(frozen=True)
class Fingerprints:
    """Of a set of pictures, in their order."""

    digests: NDArray[np.str_]
    """(N,): SHA-256 of the pixels; "" for pictures without contrast."""
    patterns: Patterns | None
    """`None` where the pictures are too small for it."""
    greys: Greys | None
    """(N, 128, 128), what points are looked for in; `None` likewise."""

    def __len__(self) -> int:
        return len(self.digests)

    def part(self, inside: NDArray[np.bool_]) -> "Fingerprints":
        """Those of the pictures at which `inside` (N,) is true."""
        return Fingerprints(
            self.digests[inside],
            None if self.patterns is None else self.patterns[inside],
            None if self.greys is None else self.greys[inside],
        )


def fingerprints(pictures: Iterable[Picture]) -> Fingerprints:
    """Checksums and patterns of pictures (H, W, 3) uint8, all of one size."""
    digests, found, greys = list[str](), list[Patterns](), list[Greys]()
    for picture in pictures:
        flat = picture.std(axis=(0, 1)).max() < FLAT
        digests.append("" if flat else hashlib.sha256(picture.tobytes()).hexdigest())
        if min(picture.shape[:2]) >= SIDE:
            found.append(patterns([picture]))
            greys.append(grey(picture))
    seen = (np.concatenate(found), np.stack(greys)) if found else (None, None)
    return Fingerprints(np.array(digests, dtype=np.str_), *seen)


def first_of_each(digests: NDArray[np.str_]) -> NDArray[np.bool_]:
    """(N,): false for each picture whose very pixels an earlier one has."""
    inside = digests == ""
    inside[np.unique(digests, return_index=True)[1]] = True
    return inside


def partners(pictures: Fingerprints, others: Fingerprints) -> NDArray[np.intp]:
    """(N,): the first of the others whose very pixels each picture has; -1 where none has."""
    where = {digest: row for row, digest in reversed(list(enumerate(others.digests.tolist()))) if digest}
    return np.array([where.get(digest, -1) for digest in pictures.digests.tolist()], np.intp)


def same_pixels(pictures: Fingerprints, others: Fingerprints) -> NDArray[np.bool_]:
    """(N,): whether the very pixels of each picture are those of one of the others."""
    return np.isin(pictures.digests, others.digests) & (pictures.digests != "")


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
