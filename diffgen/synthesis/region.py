"""What is drawn of an image whose plan asks for a region: windows of its two canvases, in whole numbers.

From the pixels back: the region's decoding windows, their cone through the image model's covers, the label
map under that cone, the mask pixels that it is enlarged from, what cleaning them looks at, and its own cone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from diffgen.sampling import decode, masks
from diffgen.sampling.covers import Area, CoverSchedule
from diffgen.synthesis.plan import Plan


@dataclass(frozen=True)
class MaskPart:
    """The part of a mask canvas that is decoded, and what is asked of its label map."""

    latents: Area
    """Of the canvas: what the windows of `drawn` read."""
    canvas: tuple[int, int]
    """(H, W) of the canvas."""
    drawn: Area
    """In mask pixels: decoded and cleaned."""
    asked: Area
    """In mask pixels: what the image model and the picture need."""
    whole: tuple[int, int]
    """(H, W) of the label map."""
    window: Area
    """Of the image's latents: where its model needs labels."""


def image_covers(plan: Plan, index: int) -> CoverSchedule:
    """The covers of an image's canvas, or those that its region depends on."""
    factor, (height, width) = plan.facts.factor, plan.size_of(index)
    shape = height // factor, width // factor
    if plan.region is None:
        return plan.model("image").covers(*shape, index)
    y0, x0, y1, x1 = (side // factor for side in plan.region)
    part = decode.windows_box(shape, (y0, x0, y1, x1), plan.tiling.tile, plan.tiling.overlap)
    return plan.model("image").covers(*shape, index, part)


def mask_parts(plan: Plan, index: int, window: Area) -> Iterator[MaskPart | None]:
    """The part of a mask canvas to draw for a window of the image's latents; once: None, all of it.

    How far cleaning looks depends on what is drawn: where it was not far enough, the next part is larger, and
    the last one is the whole, of which every pixel is sure.
    """
    if plan.region is None:
        yield None
        return
    facts, canvas = plan.facts, plan.mask_shape(index)
    factor, (height, width) = facts.mask_factor, (side * facts.mask_factor for side in canvas)
    y0, x0, y1, x1 = (side * facts.factor for side in window)
    (top, bottom), (left, right) = (
        masks.support(np.array([start, end - 1]), facts.mask_pixel_px, side)
        for start, end, side in ((y0, y1, height), (x0, x1, width))
    )
    margin = first_margin(plan)
    while True:
        box = (
            max(0, top - margin) // factor, max(0, left - margin) // factor,
            min(canvas[0], -(-(bottom + margin) // factor)), min(canvas[1], -(-(right + margin) // factor)),
        )  # fmt: skip
        y0, x0, y1, x1 = (side * factor for side in box)
        yield MaskPart(
            _read(plan, canvas, box), canvas, (y0, x0, y1, x1), (top, left, bottom, right),
            (height, width), window,
        )  # fmt: skip
        if box == (0, 0, *canvas):
            return
        margin *= 2


def mask_covers(plan: Plan, index: int, part: MaskPart | None) -> CoverSchedule:
    """The covers of a mask canvas, or those that a part of it depends on."""
    area = None if part is None else part.latents
    return plan.model("mask").covers(*plan.mask_shape(index), index, area)


def first_margin(plan: Plan) -> int:
    """Mask pixels that are drawn around what is asked, at first: rarely does cleaning look further."""
    return max(2 * plan.min_region, plan.facts.mask_patch_pixels // 4)


def _read(plan: Plan, canvas: tuple[int, int], box: Area) -> Area:
    """What the decoding windows of a box of the mask canvas read, whichever autoencoder the masks have."""
    if not plan.facts.mask_channels:  # bits: pixel by pixel
        return box
    sampling = plan.sampling
    found = [
        decode.windows_box(canvas, box, how.tile, how.overlap)
        for reach in (plan.facts.reach, None)
        for how in [decode.tiling(sampling.decode_tile, sampling.decode_overlap, reach)]
    ]
    starts, ends = np.array(found)[:, :2].min(axis=0), np.array(found)[:, 2:].max(axis=0)
    y0, x0, y1, x1 = (int(side) for side in (*starts, *ends))
    return y0, x0, y1, x1
