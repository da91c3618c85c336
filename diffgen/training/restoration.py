"""What an autoencoder is trained on and by: random crops, and how far they are from what comes back.

Invariants: every draw comes from (seed, step, sample), and no sample's loss depends on its batch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from diffgen import config
from diffgen.data.stream import PatchTable, crop
from diffgen.errors import UserError
from diffgen.models.efficientnet import OFFSET, SCALE, efficientnet
from diffgen.sampling.decode import from_picture
from diffgen.sampling.seeds import Purpose, generator
from diffgen.training.algorithm import Batch, Loss, draw_noise
from diffgen.training.meters import Meters

BLOCKS = (1, 2, 4)
"""Sides of the pixel blocks whose means are compared: colour and slow structure count more than grain."""
LIKENESS = 2.0
"""Of the critic's maps beside its judgement."""
FEATURES = (0, 2, 4)
"""Blocks of EfficientNet-lite0 whose maps are compared: at a half, a quarter and an eighth of the side."""


class CropSource:
    """Square crops of prepared patches, each in one of its eight flips and turns.

    Of a `Batch`, `clean` are the images (B, 3, S, S), `noise` is that on the latents (B, C, S/f, S/f), of a
    deviation up to 1.
    """

    def __init__(self, patches: PatchTable, settings: config.Settings) -> None:
        """Raises `UserError` where there is no patch, or all patches are smaller than the crops."""
        self.patches, self.seed = patches, settings.seed
        self.side = settings.training.autoencoder.crop
        latent = self.side // settings.autoencoder.factor
        self.shape = (settings.autoencoder.channels, latent, latent)
        if not len(patches):
            raise UserError(f"{patches.folder} holds no image patches to train on")
        if not len(patches.drawn):
            largest = max(min(row["height"], row["width"]) for row in patches.rows)
            raise UserError(
                f"training.autoencoder.crop {self.side}: the patches have {largest} pixels a side"
            )

    def sides(self, step: int, batch: int) -> list[int]:
        del step
        return [self.side] * batch

    def batch(self, step: int, samples: Sequence[int]) -> Batch:
        images, noises = [], []
        for sample in samples:
            rng = generator(self.seed, step, Purpose.TRAINING, sample)
            number = int(self.patches.drawn[rng.integers(len(self.patches.drawn))])
            picture, _ = crop(self.patches.picture(number), None, self.side, rng)
            images.append(torch.from_numpy(from_picture(picture)))
            noises.append(draw_noise(self.shape, rng) * float(rng.random()))
        steps = torch.full((len(images),), step)
        return Batch(torch.stack(images), torch.zeros_like(steps), steps, torch.stack(noises))


class RestorationLoss:
    """Absolute differences of pixels and of block means; after a share of the steps what a critic and a
    network of features see.

    Latents are decoded under noise, and their mean square is kept small. In evaluation mode the loss is
    the squared error of the pixels without noise: what the PSNR is made of.
    """

    def __init__(
        self,
        part: config.AutoencoderTraining,
        progress: Callable[[], float],
        device: torch.device | str = "cpu",
    ) -> None:
        """`progress` says how far the training is, from 0 to 1."""
        self.part, self.progress = part, progress
        self.features = FeatureDistance(device) if part.feature_weight else None

    def __call__(self, model: Any, batch: Batch) -> Loss:
        """`model` is a `Restorer`, or what gathers its gradients."""
        part, images = self.part, batch.clean
        noise = batch.noise * part.latent_noise if model.training else None
        restored = model(images, noise, part.coarse_weight > 0)
        decoded = restored.decoded.float()
        pixels = (decoded - images).square().mean(dim=1).detach()
        if not model.training:
            samples = (decoded.clamp(-1, 1) - images).square().mean(dim=(1, 2, 3))
            return Loss(samples, samples, pixels)
        loss = blurred_difference(decoded, images, BLOCKS)
        loss = loss + part.latent_weight * restored.latents.float().square().mean(dim=(1, 2, 3))
        if restored.coarse is not None:
            small = F.avg_pool2d(images, 2)
            loss = loss + part.coarse_weight * blurred_difference(restored.coarse.float(), small, BLOCKS[:-1])
        textured = self.progress() >= part.texture_from
        if self.features and textured:
            loss = loss + part.feature_weight * self.features.distance(decoded, images)
        if (judged := restored.judgement) is not None:
            weight = part.critic_weight if textured else 0.0  # it learns to judge before it is heard
            loss = loss + weight * (judged.persuasion + LIKENESS * judged.likeness) + judged.criticism
        return Loss(loss, loss, pixels)

    def measure(self, meters: Meters, loss: Loss, batch: Batch) -> None:
        """Nothing beside the loss."""


def blurred_difference(images: Tensor, others: Tensor, blocks: Sequence[int]) -> Tensor:
    """Sum of the mean absolute differences (B,) of the means of blocks of each side."""
    blurred = [F.avg_pool2d(images - others, side).abs().mean(dim=(1, 2, 3)) for side in blocks]
    return torch.stack(blurred).sum(dim=0)


class FeatureDistance:
    """Distance of images in the first features of a fixed network, each pixel's brought to unit length
    (Zhang et al., 2018, without their weights)."""

    def __init__(self, device: torch.device | str) -> None:
        self.network = efficientnet(device)

    def distance(self, images: Tensor, others: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [−1, 1], twice → (B,); the gradient is that of the first."""
        with torch.no_grad():
            wanted = self._maps(others)
        pairs = zip(self._maps(images), wanted, strict=True)
        return torch.stack([(a - b).square().sum(dim=1).mean(dim=(1, 2)) for a, b in pairs]).sum(dim=0)

    def _maps(self, images: Tensor) -> list[Tensor]:
        net, maps = self.network, []
        x = net._swish(net._bn0(net._conv_stem(((images + 1) * 127.5 - OFFSET) / SCALE)))
        for number, block in enumerate(net._blocks[: FEATURES[-1] + 1]):
            x = block(x)
            if number in FEATURES:
                maps.append(F.normalize(x.float(), dim=1))
        return maps
