"""Stored latents kept on the device that trains: a batch costs one gather instead of a file a crop.

Invariants: crops, and all that is drawn with them, are those of `StoredCrops` for the same generator.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffgen.data.stream import PatchTable
from diffgen.errors import UserError
from diffgen.labels import LabelMap
from diffgen.training.stored import StoredCrops


class Window(NamedTuple):
    """A crop by where it lies among the numbers on the device."""

    start: int
    """Of its first pixel in the first channel."""
    area: int
    """Numbers from one channel to the next."""
    width: int
    """Numbers from one row to the next."""
    side: int
    noise: NDArray[np.float32] | None
    """(C, side, side), where latents are drawn from the autoencoder's distribution."""


class ResidentCrops:
    """What `StoredCrops` crops, loaded once; label maps stay in the memory of the process."""

    def __init__(self, stored: StoredCrops, device: torch.device) -> None:
        """Reads all variants of all patches, as float16. Raises `UserError` where they do not fit."""
        self.stored, self.channels = stored, stored.latent_key.channels
        self.maps: list[list[LabelMap]] = []
        self.starts = np.zeros((len(self.patches), stored.latent_key.variants), np.int64)
        halves: list[NDArray[np.float16]] = []
        total = 0
        for number in range(len(self.patches)):
            self.maps.append([])
            for variant in range(stored.latent_key.variants):
                mean, log_deviation, labels = stored.read(number, variant)
                self.starts[number, variant] = total
                parts = [mean] if log_deviation is None else [mean, log_deviation]
                halves += [part.ravel() for part in parts]
                total += sum(part.size for part in parts)
                self.maps[-1].append(labels)
        self.draws = bool(len(self.patches)) and log_deviation is not None
        try:
            self.numbers = torch.from_numpy(np.concatenate(halves or [np.zeros(0, np.float16)])).to(device)
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise UserError(
                f"training.resident: {2 * total / 1e9:.1f} GB of latents do not fit on {device.type}"
            ) from error

    @property
    def patches(self) -> PatchTable:
        return self.stored.patches

    def crop(
        self, number: int, side: int, rng: np.random.Generator, holding: int | None = None
    ) -> tuple[Window, LabelMap]:
        """Where a crop of `side` latent pixels of a patch lies, and its label map (side, side)."""
        variant = int(rng.integers(self.stored.latent_key.variants))
        labels = self.maps[number][variant]
        y, x = self.stored.corner(number, labels, side, rng, holding)
        height, width = labels.shape
        shape = (self.channels, side, side)
        noise = rng.standard_normal(shape, dtype=np.float32) if self.draws else None
        start = int(self.starts[number, variant]) + y * width + x
        return Window(start, height * width, width, side, noise), labels[y : y + side, x : x + side].copy()

    def encode(self, crops: Sequence[Window]) -> Tensor:
        """Crops of one side → latents (B, C, side, side) on the device."""
        device, side = self.numbers.device, crops[0].side
        places = torch.tensor([window[:3] for window in crops], device=device)
        start, area, width = places.T[:, :, None, None, None]
        pixel = torch.arange(side, device=device)
        index = start + torch.arange(self.channels, device=device)[:, None, None] * area
        index = index + pixel[:, None] * width + pixel
        latents = self.numbers[index].float()
        if self.draws:
            noise = np.stack([window.noise for window in crops if window.noise is not None])
            deviation = self.numbers[index + self.channels * area].float().exp()
            latents = latents + deviation * torch.from_numpy(noise).to(device)
        return latents
