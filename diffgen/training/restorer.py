"""An autoencoder in training and, where its texture is judged, the critic that is trained beside it.

Both take their steps from one gradient: each loss reaches the weights of one of the two only.
"""

from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffgen.models.conv_autoencoder import ConvAutoencoder
from diffgen.models.critic import Critic

CRITIC = "critic"


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
