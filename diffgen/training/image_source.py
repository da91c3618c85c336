"""What the image model is trained on: crops of labelled and unlabelled patches, eq. (9), wide at high noise.

A crop is drawn by its class, its place and one of eight flips and turns; its label map reaches the
latent grid as in sampling (`sampling.masks.on_grid`).
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffgen import config
from diffgen.data.stream import Patches, crop
from diffgen.errors import UserError
from diffgen.labels import UNKNOWN, LabelMap, Picture
from diffgen.models.autoencoder import LatentCodec
from diffgen.sampling.decode import from_picture
from diffgen.sampling.masks import on_grid
from diffgen.training.algorithm import Batch, draw_noise, draw_timestep

ENCODING = threading.Lock()
"""One batch at a time is encoded, whatever the number of reading threads: its activations are gigabytes."""
TRIES = 10  # crops around a pixel of a class that is too thin to show on the latent grid


class Crops(Protocol):
    """Random crops of patches, and their latents: encoded now (`LiveCrops`) or before (`StoredCrops`)."""

    @property
    def patches(self) -> Patches: ...

    def crop(
        self, number: int, side: int, rng: np.random.Generator, holding: int | None = None
    ) -> tuple[Any, LabelMap]:
        """A crop of `side` latent pixels, as `encode` takes it, and its label map (side, side)."""
        ...

    def encode(self, crops: Sequence[Any]) -> Tensor:
        """Crops of one side → latents (B, C, side, side)."""
        ...


@dataclass(frozen=True)
class LiveCrops:
    """Crops of pictures, encoded when they are drawn."""

    patches: Patches
    codec: LatentCodec
    sample: bool = False
    """Draw from the autoencoder's distribution; else its mode."""

    def crop(
        self, number: int, side: int, rng: np.random.Generator, holding: int | None = None
    ) -> tuple[tuple[Picture, Tensor | None], LabelMap]:
        label_map = self.patches.label_map(number) if self.patches.rows[number]["labelled"] else None
        pixels = side * self.codec.factor
        picture, labels = crop(self.patches.picture(number), label_map, pixels, rng, holding)
        spread = draw_noise((self.codec.channels, side, side), rng) if self._draws else None
        return (picture, spread), on_grid(labels, self.codec.factor)

    @property
    def _draws(self) -> bool:
        return self.sample and self.codec.varies

    def encode(self, crops: Sequence[tuple[Picture, Tensor | None]]) -> Tensor:
        images = torch.from_numpy(np.stack([from_picture(picture) for picture, _ in crops]))
        with ENCODING:
            if not self._draws:
                return self.codec.encode(images)
            mean, log_deviation = self.codec.moments(images).chunk(2, dim=1)
        spread = torch.stack([noise for _, noise in crops if noise is not None])
        return mean + log_deviation.exp() * spread.to(mean.device)


class ImageSource:
    """Random crops under one label each (`per_label`) or under all of theirs (`joint`)."""

    def __init__(
        self,
        crops: Crops,
        model: config.ImageModel,
        part: config.Part,
        channels: int,
        log_snr: NDArray[np.float64],
        seed: int,
    ) -> None:
        """`log_snr` of each time step; crops below `model.wide_below` may be wide."""
        self.crops, self.model, self.part, self.channels = crops, model, part, channels
        self.log_snr, self.seed, self.patches = log_snr, seed, crops.patches
        self.classes = sorted(self.patches.by_class)
        if not len(self.patches):
            raise UserError(f"{self.patches.folder} holds no image patches to train on")
        self.by_area = _by_area(self.patches) if part.balance == "area" and self.classes else None

    def sides(self, step: int, batch: int) -> list[int]:
        return [self._begin(step, j)[1] for j in range(batch)]

    def _begin(self, step: int, sample: int) -> tuple[int, int, np.random.Generator]:
        """Time step and side of a sample: twice the patch with p_wide where noise hides all but the large."""
        timestep, rng = draw_timestep(self.seed, step, sample, len(self.log_snr))
        drawn = rng.random() < self.model.p_wide
        noisy = self.model.context == "wide" and self.log_snr[timestep] < self.model.wide_below
        return timestep, self.model.patch * (2 if noisy and drawn else 1), rng

    def batch(self, step: int, samples: Sequence[int]) -> Batch:
        crops, maps, steps, noises = [], [], [], []
        for j in samples:
            timestep, side, rng = self._begin(step, j)
            crop, label_map = self._draw(side, rng)
            crops.append(crop)
            maps.append(torch.from_numpy(label_map))
            steps.append(timestep)
            noises.append(draw_noise((self.channels, side, side), rng))
        clean = self.crops.encode(crops)
        return Batch(clean, torch.stack(maps), torch.tensor(steps), torch.stack(noises))

    def _draw(self, side: int, rng: np.random.Generator) -> tuple[Any, LabelMap]:
        """(z_0, c) of eq. (9), before encoding: from q₁ with its label, or from q₀ with ∅."""
        conditional = bool(self.classes) and rng.random() < self.part.p_conditional
        if not conditional:
            pool = self.patches.unlabelled if len(self.patches.unlabelled) else self.patches.labelled
            picture, _ = self.crops.crop(int(rng.choice(pool)), side, rng)
            return picture, np.zeros((side, side), np.uint8)
        number, label = self._labelled(rng)
        for _ in range(TRIES):
            picture, label_map = self.crops.crop(number, side, rng, label)
            if (label_map == label).any():
                break
        joint = self.model.conditioning == "joint"
        return picture, label_map if joint else np.where(label_map == label, label_map, UNKNOWN)

    def _labelled(self, rng: np.random.Generator) -> tuple[int, int]:
        """A patch and a class in it: a class, then a patch that has it; or by the area they take."""
        if self.by_area is not None:
            pairs, ends = self.by_area
            return pairs[int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))]
        label = int(rng.choice(self.classes))
        return int(rng.choice(self.patches.by_class[label])), label


def _by_area(patches: Patches) -> tuple[list[tuple[int, int]], NDArray[np.float64]]:
    """(patch, class) pairs, and the running sum of the pixels they take."""
    rows = patches.rows
    sizes = {n: rows[n]["height"] * rows[n]["width"] for n in patches.labelled.tolist()}
    pairs = [(n, c) for c, numbers in patches.by_class.items() for n in numbers.tolist()]
    return pairs, np.cumsum([rows[n]["shares"][c] * sizes[n] for n, c in pairs])
