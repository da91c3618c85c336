"""From a finished canvas to PNGs, region by region: what is cut out for a sampler, and what it makes of it.

A region is a box of the canvas that holds whole tiles (or the one image); its pixels are bit for bit
those of the canvas decoded at once. What a sampler needs of latents and label map is cut out, so that
its memory does not grow with the image where tiles are asked for.
"""

import io
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffgen.labels import LabelMap, Labels, Picture
from diffgen.sampling import decode, masks
from diffgen.sampling.covers import shifted
from diffgen.synthesis.plan import Plan

UM_PER_INCH = 25_400
PNG_LEVEL = 4  # zlib: twice as fast as its default for 2 % more bytes on tissue
Quad = tuple[int, int, int, int]
"""y0, x0, y1, x1."""


@dataclass(frozen=True)
class ScaledLabelMap:
    """A label map, or a piece of one, at its own scale."""

    label_map: LabelMap
    scale: int
    """Image pixels per pixel of it; 1 for one that was given."""
    origin: tuple[int, int] = (0, 0)
    """Where the piece begins in the whole."""
    whole: tuple[int, int] | None = None
    """Shape of the whole, where this is a piece."""

    def piece(self, rows: tuple[int, int], columns: tuple[int, int]) -> "ScaledLabelMap":
        """What the label map of these image pixels (start, end) depends on."""
        height, width = self.whole or self.label_map.shape
        if self.scale == 1:
            (y0, y1), (x0, x1) = rows, columns
        else:
            y0, y1 = masks.support(np.arange(*rows), self.scale, height)
            x0, x1 = masks.support(np.arange(*columns), self.scale, width)
        top, left = self.origin
        cut = np.ascontiguousarray(self.label_map[y0 - top : y1 - top, x0 - left : x1 - left])
        return ScaledLabelMap(cut, self.scale, (y0, x0), (height, width))

    def pixels(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> LabelMap:
        """Label map (rows, columns) of the image at these pixels."""
        if self.scale == 1:
            y, x = self.origin
            return self.label_map[np.ix_(rows - y, columns - x)]
        return masks.enlarge(self.label_map, self.scale, rows, columns, self.origin, self.whole)


@dataclass(frozen=True)
class RenderRegion:
    """A box of the canvas in latent pixels, and the tiles in it: number → box in image pixels."""

    box: Quad
    tiles: dict[int, Quad]


@dataclass(frozen=True)
class RenderJob:
    """A region's latents and label map → PNGs of its tiles."""

    region: RenderRegion
    latents: NDArray[np.float32]
    """(C, h, w): what the region's windows read."""
    window: Quad
    """Where that lies in the canvas."""
    canvas: tuple[int, int]
    """(H, W) of the canvas."""
    labelled: ScaledLabelMap


@dataclass(frozen=True)
class RenderedTile:
    """One sample's pictures."""

    tile: int
    y: int
    x: int
    height: int
    width: int
    image: bytes
    mask: bytes
    class_shares: list[float]


def regions(plan: Plan, height: int, width: int, wanted: Collection[int]) -> list[RenderRegion]:
    """The regions of an image of so many pixels with the tiles that are wanted of each, by their rows."""
    factor, how = plan.facts.factor, plan.tiling
    if plan.tile is None:
        y0, x0, y1, x1 = box = plan.region or (0, 0, height, width)
        return [RenderRegion((y0 // factor, x0 // factor, y1 // factor, x1 // factor), {0: box})]
    unit, across = plan.tile // factor, width // plan.tile
    spans = [decode.regions(side // factor, how.tile, how.overlap, unit) for side in (height, width)]
    found = [
        RenderRegion(
            (y0, x0, y1, x1),
            {
                tile: _pixels((y, x, y + unit, x + unit), factor)
                for y in range(y0, y1, unit)
                for x in range(x0, x1, unit)
                if (tile := y // unit * across + x // unit) in wanted
            },
        )
        for y0, y1 in spans[0]
        for x0, x1 in spans[1]
    ]
    return [region for region in found if region.tiles]


def _pixels(box: Quad, factor: int) -> Quad:
    y0, x0, y1, x1 = box
    return y0 * factor, x0 * factor, y1 * factor, x1 * factor


def cut(
    plan: Plan,
    latents: NDArray[np.float32],
    labelled: ScaledLabelMap,
    region: RenderRegion,
    origin: tuple[int, int] = (0, 0),
    canvas: tuple[int, int] | None = None,
) -> RenderJob:
    """What a sampler needs to render a region of a finished canvas.

    `latents` (C, h, w) are all of it, or of a `canvas` (H, W) the window at `origin`.
    """
    factor, how = plan.facts.factor, plan.tiling
    canvas = canvas or (latents.shape[1], latents.shape[2])
    window = decode.windows_box(canvas, region.box, how.tile, how.overlap)
    rows, columns = shifted((slice(window[0], window[2]), slice(window[1], window[3])), origin)
    top, left, bottom, right = _pixels(region.box, factor)
    return RenderJob(
        region,
        np.ascontiguousarray(latents[:, rows, columns]),
        window,
        canvas,
        labelled.piece((top, bottom), (left, right)),
    )


def encode(picture: Picture, item: RenderJob, labels: Labels, factor: int, mpp: float) -> list[RenderedTile]:
    """PNGs of a region's tiles, of its pixels (H, W, 3): the part of rendering that needs no device."""
    top, left = item.region.box[0] * factor, item.region.box[1] * factor
    done = []
    for tile, (y0, x0, y1, x1) in item.region.tiles.items():
        label_map = item.labelled.pixels(np.arange(y0, y1), np.arange(x0, x1))
        image = png(picture[y0 - top : y1 - top, x0 - left : x1 - left], mpp)
        shares = labels.shares(label_map)
        done.append(RenderedTile(tile, y0, x0, y1 - y0, x1 - x0, image, png(label_map, mpp), shares))
    return done


def png(array: np.ndarray[Any, np.dtype[np.uint8]], mpp: float | None = None) -> bytes:
    """RGB picture (H, W, 3) or label map (H, W; 8-bit grey, no palette) → PNG, with its µm per pixel."""
    sink = io.BytesIO()
    dpi = {} if mpp is None else {"dpi": (UM_PER_INCH / mpp, UM_PER_INCH / mpp)}
    Image.fromarray(np.ascontiguousarray(array)).save(sink, "png", compress_level=PNG_LEVEL, **dpi)
    return sink.getvalue()
