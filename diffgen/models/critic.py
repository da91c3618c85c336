"""A critic of small patches of tissue, real or decoded: what teaches a decoder texture. Only for training."""

from collections.abc import Sequence
from itertools import pairwise

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

SLOPE = 0.2
"""Of its leaky rectifiers."""


class Critic(ModelMixin, ConfigMixin):
    """Convolutions that see twenty pixels: nuclei and their chromatin, no glands.

    Weights are normalised, not activations: what a patch is judged depends on no other.
    """

    @register_to_config
    def __init__(self, widths: Sequence[int] = (16, 48, 96)) -> None:
        """Channels at the full side, where a grid of pixels shows, and at each half of it."""
        super().__init__()
        halving = [nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths)]
        levels = [nn.Conv2d(3, widths[0], 3, padding=1), *halving]
        self.levels = nn.ModuleList(weight_norm(level) for level in levels)
        self.judge = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Images (B, 3, H, W) → scores (B, 1, h, w), 1 for real and 0 for decoded; the maps before them."""
        maps = []
        for level in self.levels:
            images = F.leaky_relu(level(images), SLOPE)
            maps.append(images)
        return self.judge(images), maps
