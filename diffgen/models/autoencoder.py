"""Autoencoders: image (B, 3, H, W) in [−1, 1] ↔ latents (B, C, H/f, W/f).

One interface, `LatentCodec`, over four makes: any diffusers `AutoencoderKL` at its own scaling,
`AutoencoderTiny`, our small `ConvAutoencoder`, and the linear autoencoder of this file, which needs no
download and no training.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from diffgen import config
from diffgen.errors import UserError, one_line
from diffgen.models.conv_autoencoder import ConvAutoencoder

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderTiny

BATCH_PIXELS = {"cpu": 2**19, "cuda": 2**21}
"""Of the pictures encoded at a time: 1.3 and 5 GB of activations in Stable Diffusion's autoencoder."""
ENCODER_BYTES_PER_PIXEL = 2400


class LinearAutoencoder(ModelMixin, ConfigMixin):
    """The Karhunen–Loève basis of image blocks, as a strided and a transposed convolution.

    A block of factor² RGB pixels becomes its first `channels` principal components, each divided by
    its deviation: the linear autoencoder of least squared error (Eckart and Young, 1936).
    """

    @register_to_config
    def __init__(self, factor: int = 4, channels: int = 12) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(3, factor, factor), requires_grad=False)
        self.analysis = nn.Parameter(torch.zeros(channels, 3, factor, factor), requires_grad=False)
        self.synthesis = nn.Parameter(torch.zeros(channels, 3, factor, factor), requires_grad=False)

    def encode(self, images: Tensor) -> Tensor:
        offset = torch.einsum("czij,zij->c", self.analysis, self.mean)
        return F.conv2d(images, self.analysis, -offset, stride=self.config.factor)

    def decode(self, latents: Tensor) -> Tensor:
        height, width = latents.shape[-2:]
        return F.conv_transpose2d(latents, self.synthesis, stride=self.config.factor) + self.mean.repeat(
            1, height, width
        )

    @classmethod
    def fit(cls, images: Tensor, factor: int, channels: int) -> Self:
        """Closed form from images (B, 3, H, W) in [−1, 1]; the blocks are taken at four offsets."""
        half = factor // 2
        crops = [images[..., y:, x:] for y in {0, half} for x in {0, half}]
        blocks = torch.cat([_blocks(crop, factor) for crop in crops]).double()
        mean = blocks.mean(0)
        variances, basis = torch.linalg.eigh(torch.cov(blocks.T))  # ascending
        basis, deviations = basis.flip(1)[:, :channels], variances.flip(0)[:channels].clamp_min(1e-12).sqrt()
        largest = basis.abs().argmax(0)
        basis = basis * basis[largest, torch.arange(channels)].sign()  # eigenvectors come with any sign
        model = cls(factor=factor, channels=channels)
        shape = (channels, 3, factor, factor)
        model.mean.data = mean.reshape(shape[1:]).float()
        model.analysis.data = (basis / deviations).T.reshape(shape).float().contiguous()
        model.synthesis.data = (basis * deviations).T.reshape(shape).float().contiguous()
        return model


def _blocks(images: Tensor, factor: int) -> Tensor:
    height, width = (side // factor * factor for side in images.shape[-2:])
    cut = images[..., :height, :width]
    return rearrange(cut, "b z (h i) (w j) -> (b h w) (z i j)", i=factor, j=factor)


class LatentCodec:
    """An autoencoder at its own scaling, then standardised a channel by what was measured on the data.

    `mean` and `deviation` are (C,); with zeros and ones the latents are the autoencoder's own.
    """

    def __init__(
        self,
        model: "AutoencoderKL | AutoencoderTiny | ConvAutoencoder | LinearAutoencoder",
        mean: Sequence[float] | None = None,
        deviation: Sequence[float] | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        if isinstance(model, LinearAutoencoder):
            self.factor, self.channels = int(model.config.factor), int(model.config.channels)
        elif isinstance(model, ConvAutoencoder):
            self.factor, self.channels = int(model.config["factor"]), int(model.config["latent_channels"])
        else:
            levels = model.config.get("block_out_channels") or model.config["encoder_block_out_channels"]
            self.factor, self.channels = 2 ** (len(levels) - 1), int(model.config["latent_channels"])
        self.scale = float(model.config.get("scaling_factor") or 1.0)
        self.shift = float(model.config.get("shift_factor") or 0.0)
        self.mean = list(mean or [0.0] * self.channels)
        self.deviation = list(deviation or [1.0] * self.channels)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> Self:
        self.model.to(device)
        return self

    def _channel(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device).view(-1, 1, 1)

    def _own(self, images: Tensor) -> Tensor:
        """Latents at the autoencoder's own scaling; of a distribution its mode, so that encoding repeats."""
        if isinstance(self.model, LinearAutoencoder):
            return self.model.encode(images.to(self.device))
        encode: Any = self.model.encode

        def mode(part: Tensor) -> Tensor:
            made = encode(part)
            found: Tensor = made.latent_dist.mode() if self.varies else made.latents
            return found

        return self._scaled(self._by_parts(mode, images))

    def _scaled(self, raw: Tensor) -> Tensor:
        return (raw - self.shift) * self.scale

    def _standardized(self, own: Tensor) -> Tensor:
        return (own - self._channel(self.mean)) / self._channel(self.deviation)

    @property
    def reach(self) -> int | None:
        """Latent pixels beyond a tile's border that its decoded pixels depend on; None: no bound is known."""
        return self.model.reach if isinstance(self.model, ConvAutoencoder) else None

    @property
    def varies(self) -> bool:
        """Whether an image has a (normal) distribution of latents, not just one value of each."""
        return type(self.model).__name__ == "AutoencoderKL"

    def _by_parts(self, run: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """What `run` makes of a batch, so many pixels at a time that its activations have room."""
        pixels = BATCH_PIXELS["cuda" if self.device.type == "cuda" else "cpu"]
        parts = torch.split(images, max(1, pixels // (images.shape[-1] * images.shape[-2])))
        return torch.cat([run(part.to(self.device)) for part in parts])

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [−1, 1] → latents (B, C, H/f, W/f)."""
        return self._standardized(self._own(images))

    @torch.no_grad()
    def moments(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [−1, 1] → mean (as `encode`) and log-deviation (B, 2C, H/f, W/f).

        Both in standardised units; of an autoencoder whose latents do not vary, the mean alone (B, C, …).
        """
        if not self.varies:
            return self.encode(images)
        encode: Any = self.model.encode
        unit = self.scale / self._channel(self.deviation)

        def both(part: Tensor) -> Tensor:
            found = encode(part).latent_dist
            mean = self._standardized(self._scaled(found.mean))
            return torch.cat([mean, found.logvar / 2 + unit.log()], dim=1)

        return self._by_parts(both, images)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) → images (B, 3, h·f, w·f), not clipped to [−1, 1]."""
        own = latents.to(self.device) * self._channel(self.deviation) + self._channel(self.mean)
        if isinstance(self.model, LinearAutoencoder):
            return self.model.decode(own)
        decoded: Tensor = self.model.decode(own / self.scale + self.shift).sample
        return decoded

    @torch.no_grad()
    def measured(self, images: Iterable[Tensor], apply: bool) -> "LatentCodec":
        """This autoencoder with the latents' mean and deviation over `images` (each (B, 3, H, W)).

        With `apply` false they are left at the autoencoder's own scaling (mean 0, deviation 1).
        """
        flat = torch.cat(
            [rearrange(self._own(batch).double(), "b c h w -> c (b h w)") for batch in images], 1
        )
        deviation = flat.std(dim=1)
        if not bool(torch.isfinite(deviation).all()) or float(deviation.min()) < 1e-6:
            raise UserError("autoencoder: a latent channel does not vary on this data; is the tissue blank?")
        if not apply:
            return LatentCodec(self.model)
        return LatentCodec(self.model, flat.mean(dim=1).tolist(), deviation.tolist())


def build(
    settings: config.Autoencoder, images: Sequence[Tensor], device: torch.device | str = "cpu"
) -> LatentCodec:
    """The autoencoder that the settings name, fitted (linear) or loaded, and measured on `images`.

    It is left on `device`, where the images lie.
    Raises `UserError` where it cannot be loaded or has another factor or number of channels.
    """
    if settings.kind == "linear":
        fitted = LinearAutoencoder.fit(torch.cat(list(images)), settings.factor, settings.channels)
        return LatentCodec(fitted).to(device).measured(images, settings.standardize)
    return load(settings).to(device).measured(images, settings.standardize)


def autoencoder_class(name: str) -> Any:
    """The class of this name, ours or diffusers'. `LookupError` where there is none."""
    if own := {made.__name__: made for made in (ConvAutoencoder, LinearAutoencoder)}.get(name):
        return own
    if name not in {"AutoencoderKL", "AutoencoderTiny"}:
        raise LookupError(name)
    import diffusers  # late: its autoencoders bring all of its transformers, seconds of each process

    return getattr(diffusers, name)


def load(settings: config.Autoencoder) -> LatentCodec:
    """The autoencoder that the settings name, at its own scaling; a linear one is blank before it is fitted.

    Raises `UserError` where it cannot be loaded or has another factor or number of channels.
    """
    if settings.kind == "linear":
        return LatentCodec(LinearAutoencoder(settings.factor, settings.channels))
    make = autoencoder_class(
        {"kl": "AutoencoderKL", "tiny": "AutoencoderTiny", "conv": "ConvAutoencoder"}[settings.kind]
    )
    if settings.source is None:
        raise UserError(
            f"autoencoder.kind {settings.kind!r} needs autoencoder.source, a folder with its weights"
        )
    try:
        loaded = make.from_pretrained(
            settings.source, subfolder=settings.subfolder, use_safetensors=True, low_cpu_mem_usage=False
        )
    except (OSError, ValueError) as error:
        reason = one_line(error)[:200]
        raise UserError(f"autoencoder.source {settings.source!r} cannot be loaded: {reason}") from error
    codec = LatentCodec(loaded)
    if (codec.factor, codec.channels) != (settings.factor, settings.channels):
        raise UserError(
            f"autoencoder.source {settings.source!r} has factor {codec.factor}, {codec.channels} channels; "
            f"the settings say autoencoder.factor {settings.factor}, channels {settings.channels}"
        )
    return codec


def psnr(images: Tensor, restored: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images in [−1, 1]."""
    return 10 * math.log10(4 / float((images - restored.to(images)).square().mean()))
