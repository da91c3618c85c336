"""How a region of H&E looks apart from its structure: the stains' strength and spread, some numbers of it.

The image model is conditioned on this vector, so that all patches of a canvas are stained alike, and
a user can ask for the stain of a laboratory. Invariant: `measure` depends on the picture's pixels alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from skimage.color import hed_from_rgb

from diffgen.errors import UserError, one_line
from diffgen.labels import Picture

NAMES = (
    "haematoxylin", "haematoxylin_spread", "eosin", "eosin_spread",
    "residual", "residual_spread", "brightness", "brightness_spread",
)  # fmt: skip
"""Mean and deviation over the tissue of a region: three stains of optical density, brightness in [0, 1]."""
FILE = "appearance.safetensors"
TISSUE = 0.88
"""Brightness below which a pixel is tissue: lumen and glass say nothing of a stain."""
LEAST_TISSUE = 64
"""Pixels; of less tissue a region is measured as a whole."""
OPTICAL_DENSITY = (np.log(np.maximum(np.arange(256) / 255, 1e-6)) / np.log(1e-6)).astype(np.float32)
"""(256,) of each 8-bit value, in units of the darkest one."""
STAINS = hed_from_rgb.astype(np.float32)
"""(3, 3): what the density of a channel adds to each of three stains (Ruifrok and Johnston, 2001)."""
STRIP = 64
"""Rows that are measured at once: what is computed on the way stays in the cache."""
JITTER = 0.1
"""Deviation of what is added to a drawn vector, so that it is no region's own."""

Vector = NDArray[np.float32]
"""(A,), A = `len(NAMES)`."""
Moments = NDArray[np.float64]


def measure(picture: Picture) -> Vector:
    """Appearance (A,) of RGB (H, W, 3); its stains are those of `skimage.color.rgb2hed`."""
    count, mean, square = _moments(picture, TISSUE)
    if count < LEAST_TISSUE:
        count, mean, square = _moments(picture, np.inf)
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    return np.stack([mean, spread], axis=1).reshape(-1).astype(np.float32)


def _moments(picture: Picture, below: float) -> tuple[int, Moments, Moments]:
    """Pixels of less brightness, and the means (4,) of their stains and brightness, and of the squares."""
    import cv2  # late: a machine that trains alone needs none

    count, sums, squares = 0, np.zeros(4), np.zeros(4)
    for top in range(0, len(picture), STRIP):
        part = picture[top : top + STRIP]
        stains = cv2.transform(cv2.LUT(part, OPTICAL_DENSITY), 100 * STAINS.T)  # their units are small
        np.maximum(stains, 0, out=stains)
        bright = part[..., 0].astype(np.float32)
        bright += part[..., 1]
        bright += part[..., 2]
        bright /= 765
        inside = (bright < below).view(np.uint8)
        found = [cv2.meanStdDev(one, mask=inside) for one in (stains, bright)]
        mean, spread = (np.concatenate(both)[:, 0] for both in zip(*found, strict=True))
        number = cv2.countNonZero(inside)
        count, sums = count + number, sums + number * mean
        squares += number * (spread**2 + mean**2)
    return count, sums / max(count, 1), squares / max(count, 1)


@dataclass(frozen=True)
class Appearance:
    """The appearances of the training data, standardised, with each one's context."""

    vectors: NDArray[np.float32]
    """(N, A)."""
    contexts: NDArray[np.int64]
    """(N,), counted from 1."""
    mean: Vector
    deviation: Vector

    @classmethod
    def fit(cls, measured: NDArray[np.float32], contexts: NDArray[np.int64]) -> Self:
        """From the raw vectors (N, A) of the training regions."""
        mean, deviation = measured.mean(axis=0), np.maximum(measured.std(axis=0), 1e-6)
        return cls(((measured - mean) / deviation).astype(np.float32), contexts, mean, deviation)

    def standardized(self, vector: Vector) -> Vector:
        """A raw vector (…, A) as the network wants it."""
        scaled: Vector = ((vector - self.mean) / self.deviation).astype(np.float32)
        return scaled

    def raw(self, vector: Vector) -> Vector:
        """The inverse of `standardized`."""
        unscaled: Vector = (vector * self.deviation + self.mean).astype(np.float32)
        return unscaled

    def draw(self, rng: np.random.Generator, context: int = 0) -> Vector:
        """A standardised vector (A,) as the data of a context has it (0 or one without data: of all)."""
        rows = np.flatnonzero(self.contexts == context)
        rows = rows if len(rows) else np.arange(len(self.vectors))
        drawn = self.vectors[rng.choice(rows)]
        near = drawn + JITTER * rng.standard_normal(drawn.shape, dtype=np.float32)
        found: Vector = near.astype(np.float32)
        return found

    def named(self, vector: Vector) -> dict[str, float]:
        """A standardised vector in its own units, by name."""
        return {name: round(float(value), 4) for name, value in zip(NAMES, self.raw(vector), strict=True)}

    def save(self, folder: Path) -> None:
        arrays: Mapping[str, NDArray[np.generic]] = vars(self)
        save_file({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """That of a bundle; None where it has none. Raises `UserError` where it cannot be read."""
        if not (folder / FILE).exists():
            return None
        try:
            with safe_open(folder / FILE, framework="np") as file:
                return cls(**{key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 (no mapping)
        except Exception as error:  # safetensors raises its own kind for a damaged file
            raise UserError(f"{folder / FILE} cannot be read: {one_line(error)[:200]}") from error
