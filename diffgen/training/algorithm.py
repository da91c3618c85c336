"""Algorithm 1: what one step of training draws, and its loss.

Every draw of sample j in step s comes from (seed, s, j): the order of the data is the same on any
number of workers, and after a resume.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import DDPMScheduler
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from diffgen.data.stream import Patches, crop, dihedral
from diffgen.errors import UserError
from diffgen.labels import UNKNOWN
from diffgen.models.autoencoder import LatentCodec
from diffgen.sampling.decode import from_picture
from diffgen.sampling.masks import on_grid, to_bits
from diffgen.sampling.seeds import Purpose, generator

TRIES = 10  # crops around a pixel of a class that is too thin to show on the latent grid


@dataclass(frozen=True)
class Batch:
    """One step's samples of one worker."""

    clean: Tensor
    """z_0 (B, C, h, w): latents, or label bits."""
    condition: Tensor
    """Label maps at the latent grid (B, h, w), or contexts (B,); 0 is ∅."""
    timestep: Tensor
    """(B,), in 0 … T − 1."""
    noise: Tensor
    """ε (B, C, h, w)."""

    def to(self, device: torch.device | str) -> "Batch":
        return Batch(*(t.to(device) for t in (self.clean, self.condition, self.timestep, self.noise)))


class Source(Protocol):
    """Where a model's batches come from."""

    def batch(self, step: int, samples: range) -> Batch:
        """Samples with these numbers of the global batch of a step."""
        ...


class ImageSource:
    """Random crops of pictures, under one label each (`per_label`) or under all of theirs (`joint`)."""

    def __init__(
        self,
        patches: Patches,
        codec: LatentCodec,
        side: int,
        p_conditional: float,
        conditioning: str,
        timesteps: int,
        seed: int,
    ) -> None:
        """`side` is that of the U-Net's patch, in latent pixels."""
        self.patches, self.codec, self.side = patches, codec, side
        self.p_conditional, self.joint = p_conditional, conditioning == "joint"
        self.timesteps, self.seed = timesteps, seed
        self.classes = sorted(patches.by_class)
        if not len(patches):
            raise UserError(f"{patches.folder} holds no image patches to train on")

    def batch(self, step: int, samples: range) -> Batch:
        pictures, maps, steps, noises = [], [], [], []
        for j in samples:
            rng = generator(self.seed, step, Purpose.TRAINING, j)
            picture, label_map = self._draw(rng)
            pictures.append(torch.from_numpy(from_picture(picture)))
            maps.append(torch.from_numpy(label_map))
            steps.append(int(rng.integers(self.timesteps)))
            noises.append(_noise((self.codec.channels, self.side, self.side), rng))
        clean = self.codec.encode(torch.stack(pictures))
        return Batch(clean, torch.stack(maps), torch.tensor(steps), torch.stack(noises))

    def _draw(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """(z_0, c) of eq. (9), before encoding: from q₁ with its label, or from q₀ with ∅."""
        conditional = bool(self.classes) and rng.random() < self.p_conditional
        if not conditional:
            pool = self.patches.unlabelled if len(self.patches.unlabelled) else self.patches.labelled
            picture, _ = self._crop(int(rng.choice(pool)), rng)
            return picture, np.zeros((self.side, self.side), np.uint8)
        label = int(rng.choice(self.classes))  # classes by turns, however rare
        number = int(rng.choice(self.patches.by_class[label]))
        for _ in range(TRIES):
            picture, label_map = self._crop(number, rng, label)
            on_latents = on_grid(label_map, self.codec.factor)
            if (on_latents == label).any():
                break
        return picture, on_latents if self.joint else np.where(on_latents == label, on_latents, UNKNOWN)

    def _crop(
        self, number: int, rng: np.random.Generator, holding: int | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        label_map = self.patches.label_map(number) if self.patches.rows[number]["labelled"] else None
        return crop(self.patches.picture(number), label_map, self.side * self.codec.factor, rng, holding)


class MaskSource:
    """Label maps at the mask's scale as bits, under their context or ∅."""

    def __init__(
        self, patches: Patches, num_classes: int, p_conditional: float, timesteps: int, seed: int
    ) -> None:
        self.patches, self.num_classes, self.p_conditional = patches, num_classes, p_conditional
        self.timesteps, self.seed = timesteps, seed
        if not len(patches):
            raise UserError(
                f"{patches.folder} holds no label maps for the mask model: prepare with masks or --labels "
                "stain, or train the image model alone (diffgen train image)"
            )

    def batch(self, step: int, samples: range) -> Batch:
        cleans, contexts, steps, noises = [], [], [], []
        for j in samples:
            rng = generator(self.seed, step, Purpose.TRAINING, j)
            number = int(rng.integers(len(self.patches)))
            label_map = dihedral(self.patches.label_map(number), int(rng.integers(8)))
            conditional = rng.random() < self.p_conditional
            cleans.append(torch.from_numpy(to_bits(label_map, self.num_classes)))
            contexts.append(self.patches.context(number) + 1 if conditional else 0)
            steps.append(int(rng.integers(self.timesteps)))
            noises.append(_noise(tuple(cleans[-1].shape), rng))
        return Batch(torch.stack(cleans), torch.tensor(contexts), torch.tensor(steps), torch.stack(noises))


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def loss(unet: Any, schedule: DDPMScheduler, batch: Batch) -> Tensor:
    """‖ε − ε_θ(z_t, t, c)‖² at z_t = γ_t z_0 + σ_t ε (Alg. 1, lines 4–5), or of v or z_0 in place of ε."""
    noisy = schedule.add_noise(batch.clean, batch.noise, batch.timestep)
    predicted = unet(noisy, batch.timestep, batch.condition)
    kind = schedule.config["prediction_type"]
    if kind == "v_prediction":
        target = schedule.get_velocity(batch.clean, batch.noise, batch.timestep)
    else:
        target = batch.noise if kind == "epsilon" else batch.clean
    return F.mse_loss(predicted.float(), target.float())
