"""An autoencoder in training: random crops, the critic trained beside it, how far what comes back is off.

Invariants: every draw comes from (seed, step, sample), and no sample's loss depends on its batch. Autoencoder
and critic take their steps from one gradient: each loss reaches the weights of one of the two only.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffgen import config
from diffgen.data.stream import PatchTable, crop
from diffgen.errors import UserError
from diffgen.models.conv_autoencoder import ConvAutoencoder
from diffgen.models.critic import Critic
from diffgen.models.efficientnet import OFFSET, SCALE, efficientnet
from diffgen.sampling.decode import from_picture
from diffgen.sampling.seeds import Purpose, generator
from diffgen.training.algorithm import Batch, Loss, draw_noise
from diffgen.training.meters import Meters

CRITIC = "critic"
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


class Judgement(NamedTuple):
    """Losses (B,)."""

    persuasion: Tensor
    """How far from real the critic holds the decoded image; reaches the autoencoder only."""
    likeness: Tensor
    """How far its maps are from those of the real image (Larsen et al., 2016); the same."""
    criticism: Tensor
    """How badly real and decoded are told apart (Mao et al., 2017, eq. 2); reaches the critic only."""


class Restored(NamedTuple):
    """What came of a batch of images (B, 3, H, W)."""

    latents: Tensor
    decoded: Tensor
    coarse: Tensor | None = None
    """(B, 3, H/2, W/2): decoded of the means of 2 × 2 latents."""
    judgement: Judgement | None = None


class Restorer(nn.Module):
    """`forward` is all that a step needs, so that gradients of several workers can be gathered around it."""

    def __init__(self, autoencoder: Any, critic: Any | None = None) -> None:
        super().__init__()
        self.autoencoder, self.critic = autoencoder, critic

    def forward(self, images: Tensor, noise: Tensor | None = None, coarse: bool = False) -> Restored:
        """In evaluation mode only the latents and what is decoded of them."""
        latents, decoded = self.autoencoder(images, noise)
        if not self.training:
            return Restored(latents, decoded)
        small = self.autoencoder.decoder(F.avg_pool2d(latents, 2)) if coarse else None
        return Restored(latents, decoded, small, self._judgement(images, decoded))

    def _judgement(self, images: Tensor, decoded: Tensor) -> Judgement | None:
        if self.critic is None:
            return None
        real, wanted = self.critic(images)
        made, _ = self.critic(decoded.detach())
        fixed = {name: weight.detach() for name, weight in self.critic.named_parameters()}
        scores, maps = torch.func.functional_call(self.critic, fixed, (decoded,))
        distances = [_mean((a - b.detach()).abs()) for a, b in zip(maps, wanted, strict=True)]
        return Judgement(
            _mean((scores - 1).square()),
            torch.stack(distances).sum(dim=0),
            _mean((real - 1).square()) + _mean(made.square()),
        )

    def save_pretrained(self, folder: Path) -> None:
        """The autoencoder as one that is in use, and the critic in a folder of it."""
        self.autoencoder.save_pretrained(folder)
        if self.critic is not None:
            self.critic.save_pretrained(folder / CRITIC)

    @classmethod
    def from_pretrained(cls, folder: Path, **options: Any) -> Self:
        """What `save_pretrained` wrote; `options` as diffusers takes them."""
        critic = Critic.from_pretrained(folder / CRITIC, **options) if (folder / CRITIC).exists() else None
        return cls(ConvAutoencoder.from_pretrained(folder, **options), critic)


def _mean(values: Tensor) -> Tensor:
    mean: Tensor = values.float().mean(dim=(1, 2, 3))
    return mean


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
