"""Label maps as the mask U-Net sees them: as analog bits, or as a grey image's latents.

One interface, `MaskCodec`, over two makes. `LabelBits` (Chen et al., 2022) writes class ids as ±1 bit
planes at the mask's own scale: no autoencoder, no loss. `GreyLatents` is the paper's: the label map as
a grey image, through an autoencoder, and back by the nearest level; between two classes its greys can
pass through a third, so what is drawn is cleaned afterwards.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffgen import config
from diffgen.errors import UserError
from diffgen.labels import LabelMap, Labels, Picture
from diffgen.models.autoencoder import LatentCodec, LinearAutoencoder

Decoder = Callable[[Tensor], Tensor]
"""Latents (1, C, h, w) → image (1, 3, h·f, w·f) in [−1, 1]."""
WindowDecoder = Callable[[Decoder, NDArray[np.float32], int], Picture]
"""How a large canvas is decoded: decoder, latents (C, h, w), factor f → picture (h·f, w·f, 3)."""

MEASURED = 256  # label maps, each in one of its flips and turns, that an autoencoder is measured on
BATCH = 16
LEAST_DEVIATION = 1e-4  # of a channel; grey levels of 256 classes are 8e-3 apart


class MaskCodec(Protocol):
    """Label map (H, W) ↔ canvas (C, H/f, W/f) of the mask U-Net."""

    channels: int
    factor: int
    """Mask pixels per pixel of the canvas, along a side."""

    def encode(self, label_map: LabelMap) -> NDArray[np.float32]:
        """Label map (H, W), sides multiples of f → (C, H/f, W/f)."""
        ...

    def decode(self, canvas: NDArray[np.float32], windows: WindowDecoder | None = None) -> LabelMap:
        """Canvas (C, h, w) of any value → label map (h·f, w·f); never an id too high.

        `windows` decodes what is too large to go through an autoencoder whole.
        """
        ...

    def to(self, device: torch.device | str) -> None: ...


class LabelBits:
    """Class ids as ±1 bit planes, lowest bit first; back by the nearest codeword."""

    factor = 1

    def __init__(self, num_classes: int) -> None:
        self.num_classes, self.channels = num_classes, num_bits(num_classes)

    def encode(self, label_map: LabelMap) -> NDArray[np.float32]:
        return to_bits(label_map, self.num_classes)

    def decode(self, canvas: NDArray[np.float32], windows: WindowDecoder | None = None) -> LabelMap:
        del windows  # pixel by pixel
        return from_bits(canvas, self.num_classes)

    def to(self, device: torch.device | str) -> None:
        """Nothing to move."""


class GreyLatents:
    """Class ids as grey levels, evenly spaced in [−1, 1], through an autoencoder (paper, Appendix E)."""

    def __init__(self, autoencoder: LatentCodec, num_classes: int) -> None:
        self.autoencoder, self.num_classes = autoencoder, num_classes
        self.channels, self.factor = autoencoder.channels, autoencoder.factor
        # The nearest level to a grey that is the sum of three channels of 8 bits.
        self.nearest = np.rint(np.arange(3 * 255 + 1) / (3 * 255) * (num_classes - 1)).astype(np.uint8)

    def encode(self, label_map: LabelMap) -> NDArray[np.float32]:
        """By itself, not in a batch: its latents are the same whatever it is drawn with."""
        return self.autoencoder.encode(grey([label_map], self.num_classes))[0].float().cpu().numpy()

    def decode(self, canvas: NDArray[np.float32], windows: WindowDecoder | None = None) -> LabelMap:
        picture = (windows or _whole)(self.autoencoder.decode, canvas, self.factor)
        return self.nearest[picture.sum(axis=2, dtype=np.uint16)]

    def to(self, device: torch.device | str) -> None:
        self.autoencoder.to(device)


def _whole(decoder: Decoder, latents: NDArray[np.float32], factor: int) -> Picture:
    del factor
    image = decoder(torch.from_numpy(latents[None]))[0].float().clamp(-1, 1)
    picture: Picture = ((image + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    return picture


def build_mask_codec(
    settings: config.Settings, codec: LatentCodec, maps: Sequence[LabelMap], labels: Labels
) -> MaskCodec:
    """The codec that the settings name; its autoencoder is fitted to label maps (H, W) of the data.

    A linear one is fitted in closed form; a pretrained one is that of the images, `codec`, with the
    masks' own mean and deviation a channel. Raises `UserError` where the maps are too alike for it.
    """
    model = settings.mask_model
    if model.encoding == "bits":
        return LabelBits(len(labels))
    if len({int(c) for label_map in maps for c in np.unique(label_map)}) < 2:
        raise UserError(
            "mask_model.encoding=latents needs label maps of two classes or more to measure; "
            "mask_model.encoding=bits does not"
        )
    images = [grey(part, len(labels)) for part in _turned(maps)]
    if settings.autoencoder.kind == "linear":
        own = LatentCodec(_fitted(torch.cat(images), model.factor, model.channels))
    elif (codec.factor, codec.channels) == (model.factor, model.channels):
        own = codec
    else:
        raise UserError(
            f"mask_model.factor {model.factor}, channels {model.channels}: label maps go through the "
            f"images' autoencoder, which has factor {codec.factor}, {codec.channels} channels"
        )
    return GreyLatents(own.measured(images, apply=True), len(labels))


def _fitted(images: Tensor, factor: int, channels: int) -> LinearAutoencoder:
    if channels > factor**2:
        raise UserError(
            f"mask_model.channels {channels}: a block of {factor}² grey pixels has at most {factor**2}"
        )
    fitted = LinearAutoencoder.fit(images, factor, channels)
    varying = int((fitted.synthesis.flatten(1).norm(dim=1) > LEAST_DEVIATION).sum())
    if varying < channels:
        raise UserError(f"mask_model.channels {channels}: these label maps vary in {varying} only")
    return fitted


def _turned(maps: Sequence[LabelMap]) -> list[list[LabelMap]]:
    """Batches of the label maps in their flips and turns, by turns; of few maps, all eight."""
    count = max(len(maps), min(8 * len(maps), MEASURED))
    turned = [_turn(maps[k % len(maps)], k // len(maps) + k % len(maps)) for k in range(count)]
    return [turned[i : i + BATCH] for i in range(0, count, BATCH)]


def _turn(label_map: LabelMap, number: int) -> LabelMap:
    turned = np.rot90(label_map, number % 4)
    return turned[::-1] if number % 8 >= 4 else turned


def grey(maps: Sequence[LabelMap], num_classes: int) -> Tensor:
    """Label maps (H, W) of one size → images (B, 3, H, W), three equal channels: ids evenly in [−1, 1]."""
    levels = torch.linspace(-1, 1, num_classes)
    image = levels[torch.from_numpy(np.stack(maps)).long()]
    return image[:, None].expand(-1, 3, -1, -1).contiguous()


def num_bits(num_classes: int) -> int:
    """Bit planes that `num_classes` ids need."""
    return max(1, (num_classes - 1).bit_length())


def codewords(num_classes: int) -> NDArray[np.float32]:
    """(classes, bits): each id as ±1 bits, lowest bit first."""
    ids = np.arange(num_classes)[:, None] >> np.arange(num_bits(num_classes))[None, :]
    return (2.0 * (ids & 1) - 1.0).astype(np.float32)


def to_bits(label_map: LabelMap, num_classes: int) -> NDArray[np.float32]:
    """Label map (H, W) → ±1 bit planes (bits, H, W)."""
    return np.ascontiguousarray(codewords(num_classes)[label_map].transpose(2, 0, 1))


def from_bits(bits: NDArray[np.float32], num_classes: int) -> LabelMap:
    """Bit planes (bits, H, W) of any value → the class whose codeword is nearest; never an id too high."""
    scores = np.einsum("kb,bhw->khw", codewords(num_classes), bits)  # all codewords are equally long
    return scores.argmax(axis=0).astype(np.uint8)
