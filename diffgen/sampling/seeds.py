"""Random numbers of an image, a function of (seed, image index, purpose, step) and of nothing else.

Streams are independent by construction (Philox keyed by numpy's `SeedSequence`), so no two images,
stages or steps ever share numbers (promise 4), and image k does not depend on how many there are.
"""

from enum import IntEnum

import numpy as np


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


def generator(seed: int, index: int, purpose: Purpose, step: int = 0) -> np.random.Generator:
    """The stream of one image (or training sample) for one purpose in one step."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, index, int(purpose), step))))
