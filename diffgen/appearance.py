"""How a region of H&E looks apart from its structure: the stains' strength and spread, some numbers of it.

The image model is conditioned on this vector, so that all patches of a canvas are stained alike, and
a user can ask for the stain of a laboratory. Invariant: `measure` depends on the picture's pixels alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

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
JITTER = 0.1
"""Deviation of what is added to a drawn vector, so that it is no region's own."""

Vector = NDArray[np.float32]
"""(A,), A = `len(NAMES)`."""


def measure(picture: Picture) -> Vector:
    """Appearance (A,) of RGB (H, W, 3); its stains are those of `skimage.color.rgb2hed`."""
    channels = [np.ascontiguousarray(picture[..., k]).reshape(-1) for k in range(3)]
    total = channels[0].astype(np.uint16)  # a mean over channels is slow
    for channel in channels[1:]:
        total += channel
    tissue = total < TISSUE * 765
    if np.count_nonzero(tissue) >= LEAST_TISSUE:
        channels, total = [channel[tissue] for channel in channels], total[tissue]
    densities = [OPTICAL_DENSITY[channel] for channel in channels]
    found = list[np.floating[Any]]()
    for stain in range(3):
        plane = sum((d * share for d, share in zip(densities, STAINS[:, stain], strict=True)), np.float32(0))
        plane = np.maximum(plane, 0) * np.float32(100)  # their units are small
        found += [plane.mean(), plane.std()]
    brightness = total.astype(np.float32) / 765
    return np.array([*found, brightness.mean(), brightness.std()], np.float32)


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
