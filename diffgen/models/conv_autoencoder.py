"""A small convolutional autoencoder for H&E: image (B, 3, H, W) in [−1, 1] ↔ latents (B, C, H/f, W/f).

Invariants: convolutions only (no attention, no normalisation over space), so what a pixel becomes
depends on a bounded neighbourhood (`reach`), and a tile with that halo decodes as the whole does.
"""

from collections.abc import Sequence
from typing import NamedTuple

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

STEM = 4
"""Side of the pixel blocks that become channels first: convolutions at full resolution cost most."""


class Residual(nn.Module):
    """x + conv(SiLU(conv(SiLU(x)))), the second convolution starting at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
        )  # fmt: skip
        nn.init.zeros_(self.block[3].weight)  # type: ignore[arg-type]  # the second convolution
        nn.init.zeros_(self.block[3].bias)  # type: ignore[arg-type]  # the same

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.block(x)
        return out


class Encoded(NamedTuple):
    """What diffusers' autoencoders without a distribution return."""

    latents: Tensor


class Decoded(NamedTuple):
    """What diffusers' decoders return."""

    sample: Tensor


class ConvAutoencoder(ModelMixin, ConfigMixin):
    """Space-to-depth, residual blocks at a quarter and at an eighth of the side, and the way back."""

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 8,
        factor: int = 8,
        widths: Sequence[int] = (64, 112),
        encoder_blocks: Sequence[int] = (2, 2),
        decoder_blocks: Sequence[int] = (3, 3),
    ) -> None:
        super().__init__()
        if factor != STEM * 2 ** (len(widths) - 1):
            raise ValueError(f"factor {factor} is not {STEM} × 2 for each of {len(widths)} widths but one")
        first, last = widths[0], widths[-1]
        encoder: list[nn.Module] = [nn.PixelUnshuffle(STEM), nn.Conv2d(3 * STEM**2, first, 3, padding=1)]
        for level, (width, blocks) in enumerate(zip(widths, encoder_blocks, strict=True)):
            if level:
                encoder.append(nn.Conv2d(widths[level - 1], width, 3, stride=2, padding=1))
            encoder += [Residual(width) for _ in range(blocks)]
        self.encoder = nn.Sequential(*encoder, nn.SiLU(), nn.Conv2d(last, latent_channels, 3, padding=1))
        decoder: list[nn.Module] = [nn.Conv2d(latent_channels, last, 3, padding=1)]
        for level in reversed(range(len(widths))):
            decoder += [Residual(widths[level]) for _ in range(decoder_blocks[level])]
            if level:
                decoder += [nn.Conv2d(widths[level], 4 * widths[level - 1], 3, padding=1), nn.PixelShuffle(2)]
        self.decoder = nn.Sequential(
            *decoder, nn.SiLU(), nn.Conv2d(first, 3 * STEM**2, 3, padding=1), nn.PixelShuffle(STEM)
        )

    def encode(self, images: Tensor) -> Encoded:
        """Images (B, 3, H, W), sides multiples of the factor → latents (B, C, H/f, W/f)."""
        return Encoded(self.encoder(images))

    def decode(self, latents: Tensor) -> Decoded:
        """Latents (B, C, h, w) → images (B, 3, h·f, w·f), not clipped to [−1, 1]."""
        return Decoded(self.decoder(latents))

    def forward(self, images: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latents of images, and what is decoded of them under noise (B, C, h, w) in their deviations.

        The deviation is that of an image's own latents, so that no image depends on its batch.
        """
        latents: Tensor = self.encoder(images)
        if noise is None:
            return latents, self.decoder(latents)
        deviation = latents.detach().float().std(dim=(1, 2, 3), keepdim=True)
        return latents, self.decoder(latents + deviation * noise)

    @property
    def reach(self) -> int:
        """Latent pixels beyond a tile's border that its decoded pixels depend on, rounded up."""
        config = self.config
        levels = len(config.widths)
        reach = 1.0  # the first convolution
        for level in reversed(range(levels)):
            scale = 2 ** (levels - 1 - level)
            reach += 2 * config.decoder_blocks[level] / scale + 1 / scale  # and the one that ends the level
        return int(-(-reach // 1))
