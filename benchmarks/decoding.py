"""Does decoding in windows leave seams? Against decoding the whole canvas at once, in one table.

    python benchmarks/decoding.py IMAGES [--canvas FILE] [--keep FOLDER] [--autoencoder FOLDER_OR_HUB_ID]

IMAGES: a folder of tissue images. Unless an AutoencoderKL is named, a small one (factor 8, with the group
norms and the attention of Stable Diffusion's, which is why windows differ) is trained on them for
some minutes and kept in the folder of `--keep`. The canvas is the middle of one continuous image, reflected
where that is too small, and was not trained on; what lies beside it in its image was.

seam          mean squared jump across the lines of the window grid, over that across all other lines, of the
              windowed decode ÷ of the whole one; 1 = no seam. At the centres of the overlaps, where the
              larger weight changes hands, and at the windows' edges; ± standard error.
error jumps   the same of the difference from the whole decode, by itself: the eye of a needle
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from diffgen.labels import Picture
from diffgen.models.autoencoder import LatentCodec
from diffgen.sampling.decode import Span, from_picture, redundancy, regions, to_picture, weights, windows

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".svs"}
CROPS = ((96, 4, 0.6), (192, 1, 0.37), (384, 1, 0.03))  # side, batch, share of the training steps
RATE = 2e-3  # of learning
WINDOWS = ((16, 0.25), (32, 0.25), (48, 0.125), (64, 0.0), (64, 0.0625), (64, 0.125), (64, 0.25), (96, 0.125))
UNIT = 64  # latent pixels: regions are cut at multiples of 512 image pixels
BLOCK = 64  # image pixels along a line that count as one independent piece, for the standard error

Weights = list[NDArray[np.float32]]
Grid = tuple[list[Span], list[Span]]


# The small autoencoder


def small_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
    )


def train(model: AutoencoderKL, images: Sequence[Picture], minutes: float) -> AutoencoderKL:
    """Least squares with a little noise on the latents, on random crops of several sizes and stains."""
    torch.manual_seed(0)
    rng, start = np.random.default_rng(0), time.monotonic()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.99))
    while (used := (time.monotonic() - start) / (60 * minutes)) < 1:
        optimizer.param_groups[0]["lr"] = RATE * (1.005 - used) * min(1, 40 * used + 0.05)
        side, batch, _ = CROPS[rng.choice(len(CROPS), p=[share for _, _, share in CROPS])]
        target = torch.from_numpy(np.stack([crop(images, side, rng) for _ in range(batch)]))
        latents = model.encode(target).latent_dist.mean
        restored = model.decode(latents + 0.05 * torch.randn_like(latents)).sample
        loss = (restored - target).square().mean() + 1e-4 * latents.square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model


def crop(images: Sequence[Picture], side: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A random crop (3, side, side) in [−1, 1], turned, and stained between half and twice as strongly."""
    image = images[int(rng.integers(len(images)))]
    y, x = (int(rng.integers(length - side + 1)) for length in image.shape[:2])
    turned = np.rot90(image[y : y + side, x : x + side], int(rng.integers(4)))
    strength = 2 ** (rng.uniform(-1, 1) + rng.uniform(-0.3, 0.3, (3, 1, 1)))
    return (2 * ((from_picture(turned) + 1) / 2) ** strength - 1).astype(np.float32)


# What is measured


def canvas_of(path: Path, side: int) -> Picture:
    """The middle of an image, `side` pixels square; reflected where the image is smaller."""
    picture = np.asarray(Image.open(path).convert("RGB"))
    short = [max(0, side - length) for length in picture.shape[:2]]
    picture = np.pad(picture, [*((n // 2, n - n // 2) for n in short), (0, 0)], mode="symmetric")
    y, x = ((length - side) // 2 for length in picture.shape[:2])
    return np.ascontiguousarray(picture[y : y + side, x : x + side])


def beside(path: Path, side: int) -> list[Picture]:
    """What lies above, below, left and right of the canvas in its image, where a training crop fits."""
    picture = np.asarray(Image.open(path).convert("RGB"))
    y, x = ((length - side) // 2 for length in picture.shape[:2])
    largest = max(length for length, _, _ in CROPS)
    parts = [picture[: max(y, 0)], picture[y + side :], picture[:, : max(x, 0)], picture[:, x + side :]]
    return [part for part in parts if min(part.shape[:2]) >= largest]


def hard(length: int, spans: list[Span], factor: int) -> Weights:
    """No blending: a pixel is the window's whose overlap with the next it lies in the nearer half of."""
    return ramp(length, spans, factor, keep=0.0)


def ramp(length: int, spans: list[Span], factor: int, keep: float = 1.0) -> Weights:
    """A linear ramp over the middle `keep` of each overlap; what is outside of that is thrown away."""
    places = np.arange(length * factor) + 0.5
    rise = [np.ones(length * factor)]
    for (_, end), (start, _) in pairwise(spans):
        middle, width = (start + end) * factor / 2, max((end - start) * factor * keep, 1e-6)
        rise.append(np.clip((places - middle) / width + 0.5, 0, 1))
    shares = [here - after for here, after in pairwise([*rise, np.zeros(length * factor)])]
    return [
        share[a * factor : b * factor].astype(np.float32) for share, (a, b) in zip(shares, spans, strict=True)
    ]


def trimmed(length: int, spans: list[Span], factor: int) -> Weights:
    return ramp(length, spans, factor, keep=0.5)


BLENDS: dict[str, Callable[[int, list[Span], int], Weights]] = {
    "hann": weights,
    "ramp": ramp,
    "ramp, middle half": trimmed,
    "none": hard,
}


class Window(NamedTuple):
    y: int  # number in its axis' windows
    x: int
    pixels: NDArray[np.float32]  # (3, h·f, w·f)


def decoded(codec: LatentCodec, latents: torch.Tensor, grid: Grid) -> Iterator[Window]:
    for y, (y0, y1) in enumerate(grid[0]):
        for x, (x0, x1) in enumerate(grid[1]):
            yield Window(y, x, codec.decode(latents[..., y0:y1, x0:x1])[0].numpy())


def pixel_box(window: Window, grid: Grid, factor: int) -> tuple[slice, slice, slice]:
    sides = (grid[0][window.y], grid[1][window.x])
    rows, columns = (slice(start * factor, end * factor) for start, end in sides)
    return slice(None), rows, columns


def blended(found: Sequence[Window], grid: Grid, weighted: tuple[Weights, Weights], factor: int) -> Picture:
    image = np.zeros((3, grid[0][-1][1] * factor, grid[1][-1][1] * factor), dtype=np.float32)
    for window in found:
        weight = weighted[0][window.y][:, None] * weighted[1][window.x]
        image[pixel_box(window, grid, factor)] += window.pixels * weight
    return to_picture(image)


def one_after_another(found: Sequence[Window], grid: Grid, factor: int) -> Picture:
    """The fault to avoid: each window laid over the ones before under its own Hann weight, not normalised."""
    image = np.zeros((3, grid[0][-1][1] * factor, grid[1][-1][1] * factor), dtype=np.float32)
    for window in found:
        hann = [np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in window.pixels.shape[1:]]
        weight = (hann[0][:, None] * hann[1]).astype(np.float32)
        there = image[pixel_box(window, grid, factor)]
        there += (window.pixels - there) * np.where(there.any(axis=0), weight, 1)
    return to_picture(image)


def lines(spans: list[Span], factor: int) -> tuple[list[int], list[int]]:
    """Pixel rows (or columns) that begin at the centre of an overlap; at the edge of a window."""
    meetings = [(start * factor, end * factor) for (_, end), (start, _) in pairwise(spans)]
    return [(start + end) // 2 for start, end in meetings], [place for ends in meetings for place in ends]


def jumps(
    image: NDArray[np.float32], grid: Grid, factor: int, kind: int
) -> tuple[NDArray[np.float64], float]:
    """Squared jumps summed a piece of the lines (kind 0: centres, 1: edges); their mean elsewhere."""
    pieces, total, number = [], 0.0, 0
    for axis in (0, 1):
        squared = np.square(np.diff(image, axis=axis)).mean(axis=2).swapaxes(0, axis)
        special = sorted({place - 1 for both in lines(grid[axis], factor) for place in both})
        rest = np.delete(squared, special, axis=0)
        total, number = total + float(rest.sum(dtype=np.float64)), number + rest.size
        for place in lines(grid[axis], factor)[kind]:
            line = squared[place - 1]
            line = line[: len(line) // BLOCK * BLOCK]
            pieces.append(line.reshape(-1, BLOCK).sum(axis=1, dtype=np.float64))
    return np.concatenate(pieces), total / number


def seam(tiled: Picture, whole: Picture, grid: Grid, factor: int, kind: int) -> tuple[float, float]:
    """The seam ratio and its standard error, by the ratio estimator over pieces of the lines."""
    (at, rest), (at_whole, rest_whole) = (
        jumps(picture.astype(np.float32), grid, factor, kind) for picture in (tiled, whole)
    )
    ratio = at.sum() / at_whole.sum()
    error = float(np.std(at - ratio * at_whole) * math.sqrt(len(at)) / at_whole.sum())
    return float(ratio * rest_whole / rest), error * rest_whole / rest


def row_of(
    tiled: Picture, whole: Picture, grid: Grid, factor: int, tile: int, overlap: float, blending: str
) -> dict[str, float | str]:
    error = tiled.astype(np.float32) - whole
    (centre, centre_se), (edge, edge_se) = (seam(tiled, whole, grid, factor, kind) for kind in (0, 1))
    squares = [jumps(error, grid, factor, kind) for kind in (0, 1)]
    lengths = [spans[-1][1] for spans in grid]
    whole_cost = math.prod(redundancy(n, tile, overlap, [(0, n)]) for n in lengths)
    huge = 100 * tile  # by regions a canvas costs more the larger it is, up to this
    return {
        "tile": tile,
        "overlap": overlap,
        "side": grid[0][0][1],
        "blending": blending,
        "decoded": whole_cost,
        "decoded_regions": redundancy(huge, tile, overlap, regions(huge, tile, overlap, UNIT)) ** 2,
        "seam_centre": centre,
        "seam_centre_se": centre_se,
        "seam_edge": edge,
        "seam_edge_se": edge_se,
        "error_jump_centre": float(squares[0][0].mean() / BLOCK / squares[0][1]),
        "error_jump_edge": float(squares[1][0].mean() / BLOCK / squares[1][1]),
        "psnr_db": psnr(tiled, whole),
        "largest": float(np.abs(error).max()),
    }


def psnr(picture: Picture, reference: Picture) -> float:
    """dB of 8-bit pictures."""
    return 20 * math.log10(255 / math.sqrt(np.square(picture.astype(np.float32) - reference).mean()))


def measure(codec: LatentCodec, canvas: Picture) -> tuple[list[dict[str, float | str]], float]:
    """A row for each size, overlap and blending; the PSNR of the whole decode against the canvas."""
    factor = codec.factor
    latents = codec.encode(torch.from_numpy(from_picture(canvas))[None])
    whole = to_picture(codec.decode(latents)[0].numpy())
    rows = []
    for tile, overlap in WINDOWS:
        height, width = latents.shape[-2:]
        grid = windows(height, tile, overlap), windows(width, tile, overlap)
        if max(map(len, grid)) == 1:
            continue
        found = list(decoded(codec, latents, grid))
        for name, make in BLENDS.items():
            if overlap or name == "none":
                weighted = make(height, grid[0], factor), make(width, grid[1], factor)
                tiled = blended(found, grid, weighted, factor)
                rows.append(row_of(tiled, whole, grid, factor, tile, overlap, name))
        if (tile, overlap) == (64, 0.25):
            tiled = one_after_another(found, grid, factor)
            rows.append(row_of(tiled, whole, grid, factor, tile, overlap, "one after another"))
    return rows, psnr(whole, canvas)


def shown(rows: list[dict[str, float | str]], title: str) -> Table:
    heads = ("tile", "overlap", "window", "blending", "decoded ÷ pixels", "by regions", "seam, centres")
    table = Table(*heads, "seam, edges", "error jumps", "PSNR dB", "largest", title=title)
    for row in rows:
        table.add_row(
            *(f"{row[key]}" for key in ("tile", "overlap", "side", "blending")),
            *(f"{row[key]:.2f}" for key in ("decoded", "decoded_regions")),
            *(f"{row[key]:.3f} ±{row[key + '_se']:.3f}" for key in ("seam_centre", "seam_edge")),
            f"{row['error_jump_centre']:.2f}, {row['error_jump_edge']:.2f}",
            f"{row['psnr_db']:.1f}",
            f"{row['largest']:.0f}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--canvas", type=Path, help="default: the largest image of the folder")
    parser.add_argument("--side", type=int, default=2048, help="of the canvas, in pixels")
    parser.add_argument("--autoencoder", help="a folder or hub id of a diffusers AutoencoderKL")
    parser.add_argument("--keep", type=Path, help="folder of the small autoencoder: read it, or write it")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    paths = sorted(path for path in arguments.images.rglob("*") if path.suffix.lower() in SUFFIXES)
    canvas_path = arguments.canvas or max(paths, key=lambda path: math.prod(Image.open(path).size))
    if arguments.autoencoder:
        model = AutoencoderKL.from_pretrained(arguments.autoencoder, use_safetensors=True)
    elif arguments.keep and (arguments.keep / "config.json").exists():
        model = AutoencoderKL.from_pretrained(arguments.keep, use_safetensors=True)
    else:
        chosen = [path for path in paths if path != canvas_path]
        pictures = [np.asarray(Image.open(path).convert("RGB")) for path in chosen]
        if near := beside(canvas_path, arguments.side):  # the canvas' own scanner and stain: half of the pool
            pictures += near * (len(pictures) // len(near))
        model = train(small_autoencoder(), pictures, arguments.minutes)
        if arguments.keep:
            model.save_pretrained(arguments.keep)
    codec = LatentCodec(model)
    side = arguments.side // codec.factor * codec.factor
    rows, quality = measure(codec, canvas_of(canvas_path, side))
    title = f"decoding {canvas_path.name}, {side}², in windows (the autoencoder itself: {quality:.1f} dB)"
    Console().print(shown(rows, title))
    if arguments.json:
        found = {"canvas": canvas_path.name, "side": side, "autoencoder_db": quality, "rows": rows}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
