"""What autoencoders keep of tissue, and what their latents are like, in one table.

    python benchmarks/autoencoder.py DATA [AUTOENCODER …] [--json FILE] [--steps 300] [--quick]

DATA is prepared; each AUTOENCODER a folder of `diffgen train autoencoder`. Linear ones of the same factors
and channels, fitted on the training patches, stand beside them. All are judged on the test split:

PSNR        of decoded pixels, in dB
sharpness   energy of the pixels' differences, decoded over real: 1 is real tissue
slope       power of the latents' large waves (2 to 4 a patch) over that of their finest: noise has 1
Dice        of a small segmenter that learned from real patches, on decoded ones; on real ones, in the title
Mpx/s       encoding and decoding, on this machine
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from diffgen import config
from diffgen.data.stream import PatchTable
from diffgen.evaluation.downstream_figures import count, dice
from diffgen.evaluation.small_nets import build, draws, fit, predict
from diffgen.models.autoencoder import LatentCodec, LinearAutoencoder, psnr
from diffgen.models.conv_autoencoder import ConvAutoencoder
from diffgen.sampling.decode import from_picture, to_picture

AT_ONCE = 16
UNIT = 16
"""Sides are cut to multiples of it: what the factors of all autoencoders and of the segmenter divide."""


class Tissue:
    """Pictures (N, S, S, 3) of a split and their label maps (N, S, S), from their top left corners."""

    def __init__(self, folder: Path, split: str, most: int) -> None:
        patches = PatchTable(folder, "image", split)
        there = patches.labelled
        numbers = there[np.unique(np.linspace(0, len(there) - 1, min(most, len(there))).astype(int))].tolist()
        pictures = [patches.picture(number) for number in numbers]
        side = min(min(picture.shape[:2]) for picture in pictures) // UNIT * UNIT
        self.pictures = np.stack([picture[:side, :side] for picture in pictures])
        self.label_maps = np.stack([patches.label_map(number)[:side, :side] for number in numbers])

    def images(self) -> Tensor:
        """(N, 3, S, S) in [−1, 1]."""
        return torch.stack([torch.from_numpy(from_picture(picture)) for picture in self.pictures])


def segmenter(train: Tissue, classes: int, steps: int) -> Callable[[NDArray[np.uint8], Tissue], float]:
    """Mean Dice of pictures by a network that learned from real ones, as a function."""
    settings = config.load(None).evaluation.downstream
    network = build("segmentation", classes - 1, settings.width, seed=0)
    order = draws([np.arange(len(train.pictures))], [1.0], settings.batch, steps, seed=0)
    fit(network, "segmentation", train.pictures, train.label_maps, order, settings, seed=0)

    def judged(pictures: NDArray[np.uint8], of: Tissue) -> float:
        parts = np.array_split(pictures, -(-len(pictures) // AT_ONCE))
        found = np.concatenate([predict(network, "segmentation", part) for part in parts])
        counts = [count(a, b, classes) for a, b in zip(of.label_maps, found, strict=True)]
        return float(np.nanmean(dice(np.sum(counts, axis=0))))

    return judged


def by_parts(run: Callable[[Tensor], Tensor], whole: Tensor) -> Tensor:
    return torch.cat([run(part) for part in torch.split(whole, AT_ONCE)])


def roughness(images: Tensor) -> float:
    """Energy of the differences of neighbouring pixels."""
    down, right = images.diff(dim=-2), images.diff(dim=-1)
    return float(down.square().mean() + right.square().mean())


def slope(latents: Tensor) -> float:
    """Power of waves of 2 to 4 a side over that of the finest, the mean over standardised channels."""
    side = latents.shape[-1]
    z = (latents - latents.mean(dim=(0, 2, 3), keepdim=True)) / latents.std(dim=(0, 2, 3), keepdim=True)
    power = torch.fft.fft2(z).abs().square().mean(dim=(0, 1))
    waves = torch.fft.fftfreq(side) * side
    radius = (waves[:, None] ** 2 + waves[None] ** 2).sqrt()
    return float(power[(radius >= 2) & (radius < 4)].mean() / power[radius >= 3 * side / 8].mean())


def measure(
    name: str, codec: LatentCodec, test: Tissue, judged: Callable[[NDArray[np.uint8], Tissue], float]
) -> dict[str, Any]:
    """One row."""
    images = test.images()
    began = time.perf_counter()
    latents = by_parts(codec.encode, images)
    encoded = time.perf_counter()
    decoded = by_parts(codec.decode, latents).clamp(-1, 1)
    ended = time.perf_counter()
    pixels = images.shape[0] * images.shape[-1] ** 2 / 1e6
    return {
        "autoencoder": name,
        "numbers per pixel": codec.channels / codec.factor**2,
        "PSNR": psnr(images, decoded),
        "sharpness": roughness(decoded) / roughness(images),
        "slope": slope(latents),
        "Dice": judged(np.stack([to_picture(image.numpy()) for image in decoded]), test),
        "encode Mpx/s": pixels / (encoded - began),
        "decode Mpx/s": pixels / (ended - encoded),
    }


def codecs(folders: list[Path], train: Tissue) -> dict[str, LatentCodec]:
    """Those of the folders, and linear ones of the same shapes (of the usual where there is no folder)."""
    made: dict[str, LatentCodec] = {}
    for folder in folders:
        model: nn.Module = ConvAutoencoder.from_pretrained(folder, low_cpu_mem_usage=False)
        made[folder.name if folder.name != "autoencoder" else folder.parent.name] = LatentCodec(model)
    shapes = {(codec.factor, codec.channels) for codec in made.values()} or {(4, 4), (4, 12), (8, 16)}
    fitted_on = train.images()[: 4 * AT_ONCE]
    for factor, channels in sorted(shapes):
        linear = LinearAutoencoder.fit(fitted_on, factor, channels)
        made[f"linear, {factor}× with {channels}"] = LatentCodec(linear)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("autoencoder", type=Path, nargs="*")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--steps", type=int, default=300, help="of the segmenter")
    parser.add_argument("--quick", action="store_true", help="a test")
    given = parser.parse_args()
    steps, most = (2, 8) if given.quick else (given.steps, 400)
    train, test = (Tissue(given.data, split, most) for split in ("train", "test"))
    classes = 1 + int(max(train.label_maps.max(), test.label_maps.max()))
    judged = segmenter(train, classes, steps)
    rows = [measure(name, codec, test, judged) for name, codec in codecs(given.autoencoder, train).items()]
    ceiling = judged(test.pictures, test)
    table = Table(*rows[0], title=f"Dice of {len(test.pictures)} real pictures: {ceiling:.3f}")
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:.3g}" for value in row.values()))
    Console().print(table)
    if given.json:
        given.json.write_text(json.dumps({"real Dice": ceiling, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
