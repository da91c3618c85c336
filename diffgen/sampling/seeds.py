"""Random numbers of an image, a function of (seed, image index, purpose, step) and of nothing else.

Streams are independent by construction (Philox keyed by numpy's `SeedSequence`), so no two images,
stages or steps ever share numbers (promise 4), and image k does not depend on how many there are.
"""

from enum import IntEnum
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

BLOCK = 128
"""Side of the blocks a canvas is drawn and stepped in, in latent pixels; part of every sample's bytes."""


class Purpose(IntEnum):
    """What the numbers are for; the values are part of every seed, so they never change."""

    CONTEXT = 0
    MASK_NOISE = 1
    MASK_COVER = 2
    IMAGE_NOISE = 3
    IMAGE_COVER = 4
    MASK_STEP_NOISE = 5
    IMAGE_STEP_NOISE = 6
    TRAINING = 7
    TRAINING_SAMPLES = 8
    APPEARANCE = 9


def generator(seed: int, index: int, purpose: Purpose, step: int = 0, *block: int) -> np.random.Generator:
    """The stream of one image (or training sample) for one purpose in one step (and block)."""
    key = (seed, index, int(purpose), step, *block)
    # Two words a number: numpy would take one for a small number, and 2³² would be read as (0, 1).
    words = [word for number in key for word in (number & 0xFFFFFFFF, number >> 32)]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


def spread(seed: int, index: int, purpose: Purpose) -> float:
    """In [0, 1), evenly over any number of images: a golden-ratio sequence from a random start."""
    return (generator(seed, 0, purpose).random() + index * (5**0.5 - 1) / 2) % 1


def noise(
    key: tuple[int, int], purpose: Purpose, step: int, channels: int, block: tuple[slice, slice]
) -> NDArray[np.float32]:
    """Normal noise (C, h, w) of one block of a canvas, or of a part of one, however large the canvas is.

    Blocks begin at multiples of `BLOCK`; each is drawn whole, so that no pixel depends on where it is cut.
    """
    rows, columns = block
    rng = generator(*key, purpose, step, rows.start // BLOCK, columns.start // BLOCK)
    whole = rng.standard_normal((channels, BLOCK, BLOCK), dtype=np.float32)
    top, left = rows.start % BLOCK, columns.start % BLOCK
    return whole[:, top : top + rows.stop - rows.start, left : left + columns.stop - columns.start]


def blocks(
    height: int, width: int, origin: tuple[int, int] = (0, 0), side: int = BLOCK
) -> list[tuple[slice, slice]]:
    """The blocks of a canvas, row by row; or what lies of them in its window that begins at `origin`."""
    rows, columns = (_cut(start, length, side) for start, length in zip(origin, (height, width), strict=True))
    return [(row, column) for row in rows for column in columns]


def _cut(start: int, length: int, side: int) -> list[slice]:
    inside = range((start // side + 1) * side, start + length, side)
    return [slice(a, b) for a, b in pairwise([start, *inside, start + length])]
