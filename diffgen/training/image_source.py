"""What the image model is trained on: crops of labelled and unlabelled patches, eq. (9), wide at high noise.

A crop is drawn by its class, its place and one of eight flips and turns; its label map reaches the
latent grid as in sampling (`label_maps.on_grid`).
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffgen import config
from diffgen.appearance import Appearance
from diffgen.data.stream import PatchTable, crop
from diffgen.errors import UserError
from diffgen.label_maps import on_grid
from diffgen.labels import UNKNOWN, LabelMap, Picture
from diffgen.models.autoencoder import LatentCodec
from diffgen.sampling.decode import from_picture
from diffgen.training.algorithm import Batch, NoiseLevels, draw_noise

ENCODING = threading.Lock()
"""One batch at a time is encoded, whatever the number of reading threads: its activations are gigabytes."""
TRIES = 10  # crops around a pixel of a class that is too thin to show on the latent grid


class CropReader(Protocol):
    """Random crops of patches, and their latents: encoded now (`LiveCrops`) or before (`StoredCrops`)."""

    @property
    def patches(self) -> PatchTable: ...

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

    patches: PatchTable
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
        crops: CropReader,
        model: config.ImageModel,
        part: config.ModelTraining,
        channels: int,
        levels: NoiseLevels,
        seed: int,
        appearance: Appearance | None = None,
    ) -> None:
        """Crops below a log-SNR of `model.wide_below` may be wide; `appearance` standardises."""
        self.crops, self.model, self.part, self.channels = crops, model, part, channels
        self.levels, self.seed, self.patches = levels, seed, crops.patches
        self.appearances = None if appearance is None else appearance.standardized(self.patches.appearances)
        self.classes = sorted(self.patches.by_class)
        if not len(self.patches.drawn):
            raise UserError(f"{self.patches.folder} holds no image patches to train on")
        self.by_area = _by_area(self.patches) if part.balance == "area" and self.classes else None

    def sides(self, step: int, batch: int) -> list[int]:
        return [self._begin(step, j)[1] for j in range(batch)]

    def _begin(self, step: int, sample: int) -> tuple[int, int, np.random.Generator]:
        """Time step and side of a sample: twice the patch with p_wide where noise hides all but the large,
        else with p_small the small one."""
        timestep, rng = self.levels.draw(self.seed, step, sample)
        model, drawn = self.model, rng.random()
        if model.context == "wide" and self.levels.log_snr[timestep] < model.wide_below:
            return timestep, model.patch * (2 if drawn < model.p_wide else 1), rng
        small = model.small_patch is not None and drawn < model.p_small
        return timestep, model.small_patch if small and model.small_patch else model.patch, rng

    def batch(self, step: int, samples: Sequence[int]) -> Batch:
        crops, maps, steps, noises, numbers, kept = [], [], [], [], [], []
        for j in samples:
            timestep, side, rng = self._begin(step, j)
            number, crop, label_map = self._draw(side, rng)
            if self.model.conditions:
                kept.append(rng.random(2) >= self.part.p_drop)
            numbers.append(number)
            crops.append(crop)
            maps.append(torch.from_numpy(label_map))
            steps.append(timestep)
            noises.append(draw_noise((self.channels, side, side), rng))
        clean = self.crops.encode(crops)
        drawn = Batch(clean, torch.stack(maps), torch.tensor(steps), torch.stack(noises))
        return replace(drawn, **self._given(numbers, np.array(kept)))

    def _given(self, numbers: Sequence[int], kept: NDArray[np.bool_]) -> dict[str, Tensor]:
        """Contexts and appearances of patches, or ∅ where they are not `kept` (B, 2)."""
        given = {}
        if "context" in self.model.conditions:
            contexts = np.array([1 + self.patches.context(number) for number in numbers])
            given["context"] = torch.from_numpy(np.where(kept[:, 0], contexts, 0))
        if self.appearances is not None:
            vectors = self.appearances[np.array(numbers)]
            given["context"] = given.get("context", torch.zeros(len(numbers), dtype=torch.int64))
            given["appearance"] = torch.from_numpy(np.where(kept[:, 1:], vectors, np.float32(np.nan)))
        return given

    def _draw(self, side: int, rng: np.random.Generator) -> tuple[int, Any, LabelMap]:
        """A patch, and (z_0, c) of eq. (9) before encoding: from q₁ with its label, or from q₀ with ∅."""
        conditional = bool(self.classes) and rng.random() < self.part.p_conditional
        if not conditional:
            pool = self.patches.unlabelled if len(self.patches.unlabelled) else self.patches.labelled
            number = int(rng.choice(pool))
            picture, _ = self.crops.crop(number, side, rng)
            return number, picture, np.zeros((side, side), np.uint8)
        number, label = self._labelled(rng)
        for _ in range(TRIES):
            picture, label_map = self.crops.crop(number, side, rng, label)
            if (label_map == label).any():
                break
        joint = self.model.conditioning == "joint"
        return number, picture, label_map if joint else np.where(label_map == label, label_map, UNKNOWN)

    def _labelled(self, rng: np.random.Generator) -> tuple[int, int]:
        """A patch and a class in it: a class, then a patch that has it; or by the area they take."""
        if self.by_area is not None:
            pairs, ends = self.by_area
            return pairs[int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))]
        label = int(rng.choice(self.classes))
        return int(rng.choice(self.patches.by_class[label])), label


def _by_area(patches: PatchTable) -> tuple[list[tuple[int, int]], NDArray[np.float64]]:
    """(patch, class) pairs, and the running sum of the pixels they take."""
    rows = patches.rows
    sizes = {n: rows[n]["height"] * rows[n]["width"] for n in patches.labelled.tolist()}
    pairs = [(n, c) for c, numbers in patches.by_class.items() for n in numbers.tolist()]
    return pairs, np.cumsum([rows[n]["shares"][c] * sizes[n] for n, c in pairs])
