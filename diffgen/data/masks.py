"""Label maps beside pictures: their values, where they lie on the slide, whether they number objects."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence
from scipy.ndimage import find_objects
from scipy.ndimage import label as components

from diffgen.data.formats.base import LeftOut, failing_as_left_out
from diffgen.data.slides import Slide
from diffgen.label_maps import STRIP, Values, values_of
from diffgen.shards import open_picture

Colours = tuple[tuple[str, int], ...]
FEWEST_OBJECTS = 3
LOOKED_AT = 50
"""Ids whose regions are counted; the first ones say what the others are."""
IN_ONE_PIECE = 0.9
"""Share of the ids of an instance mask that are one region; overlaps and clipping break some."""


def load_mask(path: str, colours: Mapping[str, int] | None = None) -> Values:
    """Values (H, W) of a mask file of any form (`label_maps.values_of`). `LeftOut`, with the reason."""
    with failing_as_left_out():
        return _load_mask(path, Path(path).stat().st_mtime_ns, tuple(sorted((colours or {}).items())))


@lru_cache(maxsize=2)
def _load_mask(path: str, _mtime: int, colours: Colours) -> Values:
    with open_picture(path) as image:
        if (pages := _pages_of_one_size(image)) > 1:
            raise LeftOut(f"its label map has {pages} pages: save the one that is meant by itself")
        try:
            return values_of(image, dict(colours))
        except ValueError as error:
            raise LeftOut(f"its label map cannot be used: {error}") from error


def _pages_of_one_size(image: Image.Image) -> int:
    """Pages as large as the first: levels of a pyramid are smaller."""
    number = getattr(image, "n_frames", 1)
    if number == 1:
        return 1
    sizes = [ImageSequence.Iterator(image)[k].size for k in range(number)]
    image.seek(0)
    return sizes.count(sizes[0])


def pixel_counts(mask: Values) -> dict[int, int]:
    """Value → number of its pixels, in order."""
    total = np.zeros(int(mask.max(initial=0)) + 1, np.int64)
    for top in range(0, len(mask), STRIP):
        total += np.bincount(mask[top : top + STRIP].reshape(-1), minlength=len(total))
    return {int(value): int(total[value]) for value in np.flatnonzero(total)}


@dataclass(frozen=True)
class Placement:
    """Where a mask lies on its slide: level-0 pixels per mask pixel, and its top left corner in those."""

    factor: int
    left: int = 0
    top: int = 0
    exact: bool = True
    """Whether its size is the slide's, divided; else a pixel is too few or too many."""


def placed(mask: Values, slide: Slide) -> Placement:
    """Where a mask lies: on all of level 0 or on the part that was scanned, at its size or a whole fraction
    of it.

    A pixel may be missing, or be too many, on each side. Raises `LeftOut`, with the remedy.
    """
    height, width = mask.shape
    left, top, *bounds = slide.bounds
    for x, y, size in ((0, 0, slide.pixels.size), (left, top, (bounds[0], bounds[1]))):
        factor = max(1, round(size[0] / width))
        off = [abs(n / factor - m) for n, m in zip(size, (width, height), strict=True)]
        if max(off) <= 1:
            return Placement(factor, x, y, exact=max(off) < 1 if factor > 1 else max(off) == 0)
    w, h = slide.pixels.size
    raise LeftOut(
        f"mask is {width}x{height}, image is {w}x{h}: a mask has the image's size, or a half or less of it"
    )


def read_mask(slide: Slide, mask: Values, x: int, y: int, width: int, height: int, um: float) -> Values:
    """Values (height, width) of the region at (x, y), in pixels of `um` µm, by nearest; 0 beside the mask."""
    place = placed(mask, slide)
    inside, index = [], []
    for start, length, mpp, origin, limit in (
        (y, height, slide.mpp[1], place.top, mask.shape[0]),
        (x, width, slide.mpp[0], place.left, mask.shape[1]),
    ):
        pixels = np.floor((((start + np.arange(length)) + 0.5) * um / mpp - origin) / place.factor).astype(
            int
        )
        inside.append((pixels >= 0) & (pixels <= limit))  # one pixel short: its last one goes on
        index.append(pixels.clip(0, limit - 1))
    values = mask[index[0][:, None], index[1][None, :]]
    if all(axis.all() for axis in inside):
        return values
    return np.where(inside[0][:, None] & inside[1][None, :], values, values.dtype.type(0))


def count_instances(mask: Values, counts: Mapping[int, int], known: Collection[int]) -> int | None:
    """Number of objects of a mask that gives each object an id of its own; None where it does not seem to.

    Its ids run from 1 without many gaps, nearly all are in one piece, and most have no name.
    """
    ids = [value for value in counts if value]
    unnamed = [value for value in ids if value not in known]
    if len(unnamed) < FEWEST_OBJECTS or len(unnamed) < len(ids) / 2 or len(ids) < 0.5 * max(ids):
        return None
    objects = find_objects(mask, max_label=max(ids[:LOOKED_AT]))
    whole = 0
    for value in ids[:LOOKED_AT]:
        region = mask[objects[value - 1]] == value
        whole += components(region, np.ones((3, 3)))[1] == 1
    return len(ids) if whole >= IN_ONE_PIECE * len(ids[:LOOKED_AT]) else None
