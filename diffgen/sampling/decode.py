"""Latents → pixels in overlapping windows under weights that sum to one (paper, Appendix F).

The weights are normalised where windows meet, so a constant stays a constant up to the border of the
canvas: unlike blending windows one after another, nothing of a window's seam is left. Where a decoder
depends on a bounded neighbourhood there is nothing to blend: windows share twice its reach and are cut
in the middle, and every pixel is that of the canvas decoded at once. Windows and weights are always
those of the whole canvas: a region gets the same bytes whether it is decoded alone, from the latents of
its windows, or cut out of the whole.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffgen.labels import Picture
from diffgen.sampling.canvas import NonFiniteError
from diffgen.sampling.covers import Area

Span = tuple[int, int]
"""Start and end along one axis, in latent pixels."""
Decoder = Callable[[Tensor], Tensor]
"""Latents (1, C, h, w) → image (1, 3, h·f, w·f) in [−1, 1]."""

REGION_WINDOWS = 8  # a side of a region: the windows on a cut are decoded twice, about one in eight


class Tiling(NamedTuple):
    """How a canvas is cut into windows."""

    tile: int
    """Side of a window, in latent pixels."""
    overlap: float
    """Share of it that neighbours have in common."""
    cut: bool = False
    """Whether they are cut there instead of blended."""


def tiling(tile: int, overlap: float, reach: int | None) -> Tiling:
    """That of a decoder whose pixels depend on `reach` latent pixels beyond them; None: on all."""
    if reach is None:
        return Tiling(tile, overlap)
    tile = max(tile, 4 * reach)  # a smaller one would decode more around it than in it
    return Tiling(tile, 2 * reach / tile, cut=True)


def windows(length: int, tile: int, overlap: float) -> list[Span]:
    """The fewest equal windows of at most `tile` along an axis, each sharing `overlap` tiles with the next.

    They are as short as their number allows: a canvas a little longer than a tile costs little more.
    """
    tile = min(tile, length)
    shared = min(round(tile * overlap), tile - 1)
    count = 1 + -(-(length - tile) // (tile - shared))
    side = -(-(length + (count - 1) * shared) // count)
    starts = [k * (length - side) // max(1, count - 1) for k in range(count)]
    return [(start, start + side) for start in starts]


def weights(length: int, spans: Sequence[Span], factor: int, cut: bool = False) -> list[NDArray[np.float32]]:
    """Weight per pixel of each window along one axis; over all windows they sum to one.

    Hann curves, normalised; or, where windows are `cut`, 1 up to the middle of what two share, and 0.
    """
    if cut:
        middles = [(start + end) * factor // 2 for (_, end), (start, _) in pairwise(spans)]
        owned = zip(spans, pairwise([0, *middles, length * factor]), strict=True)
        pixels = [(np.arange(a * factor, b * factor), own) for (a, b), own in owned]
        return [((at >= start) & (at < end)).astype(np.float32) for at, (start, end) in pixels]
    curves = [np.sin(np.pi * (np.arange((b - a) * factor) + 0.5) / ((b - a) * factor)) ** 2 for a, b in spans]
    total = np.zeros(length * factor)
    for (a, b), curve in zip(spans, curves, strict=True):
        total[a * factor : b * factor] += curve
    return [
        (curve / total[a * factor : b * factor]).astype(np.float32)
        for (a, b), curve in zip(spans, curves, strict=True)
    ]


def regions(length: int, tile: int, overlap: float, unit: int) -> list[Span]:
    """An axis cut at multiples of `unit` latent pixels into regions of about eight windows.

    A cut goes where it splits the fewest windows: each is decoded once for every region that it touches.
    """
    spans = windows(length, tile, overlap)
    count = max(1, round(len(spans) / REGION_WINDOWS))
    cuts = {_cut(spans, k * length // count, unit) for k in range(1, count)}
    return list(pairwise(sorted({0, length, *(cut for cut in cuts if 0 < cut < length)})))


def _cut(spans: Sequence[Span], ideal: int, unit: int) -> int:
    reach = max(unit, spans[0][1] - spans[0][0])
    near = range(-(-(ideal - reach) // unit) * unit, ideal + reach + 1, unit)
    return min(near, key=lambda cut: (sum(a < cut < b for a, b in spans), abs(cut - ideal), cut))


def redundancy(length: int, tile: int, overlap: float, parts: Sequence[Span]) -> float:
    """Latent pixels decoded for each one along an axis, where every part of it is decoded by itself."""
    spans = windows(length, tile, overlap)
    return sum(b - a for part in parts for a, b in _touching(spans, *part)) / length


def windows_box(shape: tuple[int, int], region: Area, tile: int, overlap: float) -> Area:
    """The part of a canvas of `shape` (H, W) latents that the windows of a region read."""
    y0, x0, y1, x1 = region
    rows = _touching(windows(shape[0], tile, overlap), y0, y1)
    columns = _touching(windows(shape[1], tile, overlap), x0, x1)
    return rows[0][0], columns[0][0], rows[-1][1], columns[-1][1]


def _touching(spans: Sequence[Span], start: int, end: int) -> list[Span]:
    return [(a, b) for a, b in spans if a < end and start < b]


def decode_region(
    decoder: Decoder,
    crop: NDArray[np.float32],
    box: Area,
    shape: tuple[int, int],
    region: Area,
    factor: int,
    how: Tiling,
) -> Picture:
    """RGB picture (h·f, w·f, 3) of a region, equal byte for byte to that part of the whole picture.

    `crop` (C, h', w') is what lies in `box` of the canvas of `shape` (H, W) latents: the region's
    `windows_box`, or more. Beyond the result it takes the memory of one row of windows. Raises
    `NonFiniteError`, naming the window.
    """
    y0, x0, y1, x1 = region
    rows = _weighted(shape[0], (y0, y1), factor, how)
    columns = _weighted(shape[1], (x0, x1), factor, how)
    picture = np.empty(((y1 - y0) * factor, (x1 - x0) * factor, 3), dtype=np.uint8)
    starts = [*(max(a, y0) for (a, _), _ in rows), y1]
    carried: Tensor | None = None  # what the next row of windows adds to
    for ((a, b), weight), (start, following) in zip(rows, pairwise(starts), strict=True):
        latents = crop[:, a - box[0] : b - box[0]]
        band = _row(decoder, latents, (a, box[1]), columns, (x0, x1), factor)
        band *= torch.from_numpy(weight).to(band.device)[:, None]
        band = band[:, (start - a) * factor : (min(b, y1) - a) * factor]
        if carried is not None:
            band[:, : carried.shape[1]] += carried
        done = (following - start) * factor
        picture[(start - y0) * factor : (following - y0) * factor] = to_pixels(band[:, :done]).cpu().numpy()
        carried = band[:, done:]
    return picture


def _weighted(length: int, part: Span, factor: int, how: Tiling) -> list[tuple[Span, NDArray[np.float32]]]:
    """The windows along one axis that touch a part of it, with their weights a pixel."""
    spans = windows(length, how.tile, how.overlap)
    touching = set(_touching(spans, *part))
    pairs = zip(spans, weights(length, spans, factor, how.cut), strict=True)
    return [(span, weight) for span, weight in pairs if span in touching]


def _row(
    decoder: Decoder,
    latents: NDArray[np.float32],
    origin: tuple[int, int],
    columns: Sequence[tuple[Span, NDArray[np.float32]]],
    part: Span,
    factor: int,
) -> Tensor:
    """A row of windows (C, h, w) at `origin`, summed under the columns' weights: (3, h·f, part·f).

    It stays on the decoder's device: only finished pixels come back.
    """
    x0, x1 = part
    band: Tensor | None = None
    for (a, b), weight in columns:
        window = np.ascontiguousarray(latents[None, :, :, a - origin[1] : b - origin[1]])
        pixels = decoder(torch.from_numpy(window))[0].float()
        if not bool(torch.isfinite(pixels).all()):
            raise NonFiniteError(f"decoding the window at row {origin[0]}, column {a}: not a finite pixel")
        if band is None:
            band = pixels.new_zeros(3, latents.shape[1] * factor, (x1 - x0) * factor)
        start, end = max(a, x0), min(b, x1)
        inside = slice((start - a) * factor, (end - a) * factor)
        shares = torch.from_numpy(weight[inside]).to(pixels.device)
        band[..., (start - x0) * factor : (end - x0) * factor] += pixels[..., inside] * shares
    assert band is not None, "a region touches a window"
    return band


def decode(decoder: Decoder, latents: NDArray[np.float32], factor: int, how: Tiling) -> Picture:
    """Latents (C, H, W) → RGB picture (H·f, W·f, 3), window by window; raises `NonFiniteError`."""
    _, height, width = latents.shape
    everything = (0, 0, height, width)
    return decode_region(decoder, latents, everything, (height, width), everything, factor, how)


def to_pixels(image: Tensor) -> Tensor:
    """Image (3, H, W) in [−1, 1] → RGB (H, W, 3) uint8, clipped, on its device."""
    return ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()


def to_picture(image: NDArray[np.float32]) -> Picture:
    """Image (3, H, W) in [−1, 1] → RGB (H, W, 3) uint8, clipped."""
    picture: Picture = to_pixels(torch.from_numpy(image)).numpy()
    return picture


def from_picture(picture: Picture) -> NDArray[np.float32]:
    """RGB (H, W, 3) uint8 → image (3, H, W) in [−1, 1]."""
    return np.ascontiguousarray(picture.transpose(2, 0, 1)).astype(np.float32) / 127.5 - 1
