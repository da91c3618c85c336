"""A label map from its file to the latent grid, the same for all commands."""

import struct
import zlib
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from diffgen.companions import LABEL_MAPS, LOSSY, pair, suffix_of
from diffgen.errors import UserError, one_line
from diffgen.labels import MAX_CLASSES, LabelMap
from diffgen.shards import open_picture, open_png, turn_upright

Values = NDArray[np.uint8] | NDArray[np.uint16]
"""(H, W) as they stand in a file, before they are class ids."""
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, LookupError, struct.error, zlib.error)
"""What PIL raises on a file that is no picture, or not a whole one."""
MOST = 2**31
"""Bytes that a label map may take when it is read."""
SHOWN = 4
STRIP = 1024
"""Rows looked at together, so that what is computed on the way stays small."""


def read(source: bytes | Path, name: str) -> LabelMap:
    """The class ids (H, W) of a label map's file; `UserError`, with its name, where it holds none."""
    values = read_values(source, name)
    if (most := values.max(initial=0)) >= MAX_CLASSES:
        raise UserError(f"{name}: a label map has class ids up to {MAX_CLASSES - 1}, not {most}")
    return values.astype(np.uint8, copy=False)


def read_values(source: bytes | Path, name: str, colours: Mapping[str, int] | None = None) -> Values:
    """Values (H, W) of a label map's file (`values_of`); `UserError`, with its name, where there are none."""
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        image = open_picture(data)
        return values_of(open_png(data, decode=True) if image.format == "PNG" else image, colours)
    except DAMAGED as error:
        raise UserError(f"{name}: not a readable label map ({one_line(error).split(' <')[0]})") from error


def files(folder: Path) -> list[Path]:
    """The label maps of a folder and of those below it, in the order of their names.

    Where they lie beside their pictures the pictures are none. `UserError` where there is none, and where one
    is in a format that changes its values.
    """
    inside = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    names = sorted(path.as_posix() for path in inside if not any(part.startswith(".") for part in path.parts))
    masks = set(pair(names).masks.values())
    found = [name for name in names if (name in masks if masks else suffix_of(name) in (*LABEL_MAPS, *LOSSY))]
    if lossy := next((name for name in found if suffix_of(name) in LOSSY), None):
        raise UserError(
            f"{folder / lossy}: a label map in {suffix_of(lossy)[1:]} has other ids: save it as PNG"
        )
    if not found:
        raise UserError(f"{folder}: no label maps ({', '.join(LABEL_MAPS)}) there")
    return [folder / name for name in found]


def values_of(image: Image.Image, colours: Mapping[str, int] | None = None) -> Values:
    """The values (H, W) of an open image: its one channel, indices of its palette, or ids by `colours`.

    Three equal channels are one; what is transparent, and a colour without an id, is 0. Raises `ValueError`
    with the reason, and what PIL raises on a damaged file.
    """
    turn_upright(image)
    if (
        size := prod(image.size) * (4 if len(image.getbands()) > 1 or image.mode in {"I", "F"} else 1)
    ) > MOST:
        width, height = image.size
        raise ValueError(
            f"a label map of {width}x{height} takes {size / 2**30:.1f} GB: save it at a half or a quarter "
            "of its sides, or as outlines"
        )
    if colours:
        return _by_colour(image.convert("RGBA"), colours)
    if image.mode in {"1", "L", "P"} or image.mode.startswith("I"):
        return _whole_numbers(np.asarray(image))
    if image.mode == "F":
        values = np.asarray(image)
        if not np.array_equal(values, np.round(values)):
            raise ValueError("its values are not whole numbers")
        return _whole_numbers(values)
    channels = np.asarray(image.convert("RGBA"))
    grey, alpha = channels[..., 0], channels[..., 3]
    if not all(np.array_equal(grey, channels[..., i]) for i in (1, 2)):
        listed = ", ".join(_common_colours(channels))
        raise ValueError(
            f"its classes are colours ({listed}): say which ids they are, "
            "--set 'prepare.mask_colours={\"#ff0000\": 1}'"
        )
    return np.where(alpha > 0, grey, np.uint8(0))


def _whole_numbers(values: NDArray[np.generic]) -> Values:
    # numpy cannot say of any kind of number that it has an order, nor that these two are all there are.
    low, high = int(values.min()), int(values.max())  # type: ignore[type-var]
    if low < 0 or high > 65535:
        raise ValueError(f"its values run from {low} to {high}, beyond 16 bits")
    return values.astype(np.uint8 if high < 256 else np.uint16, copy=False)  # type: ignore[return-value]


def _by_colour(image: Image.Image, colours: Mapping[str, int]) -> Values:
    channels = np.asarray(image)
    packed = {_packed(*ImageColor.getrgb(colour)[:3]): value for colour, value in colours.items()}
    keys = np.array(sorted(packed), np.uint32)
    ids = np.array([packed[int(key)] for key in keys], np.uint16)
    found = np.zeros(channels.shape[:2], np.uint16)
    for top in range(0, len(channels), STRIP):
        red, green, blue, alpha = (channels[top : top + STRIP, :, i].astype(np.uint32) for i in range(4))
        pixels = _packed(red, green, blue)
        place = np.searchsorted(keys, pixels).clip(0, len(keys) - 1)
        found[top : top + STRIP] = np.where((keys[place] == pixels) & (alpha > 0), ids[place], 0)
    return _whole_numbers(found)


def _packed(red: Any, green: Any, blue: Any) -> Any:
    """Colours as numbers, of integers or of arrays of them."""
    return red << 16 | green << 8 | blue


def _common_colours(channels: NDArray[np.uint8]) -> list[str]:
    """The colours that most pixels have, and how many more there are."""
    strips = (channels[top : top + STRIP].astype(np.uint32) for top in range(0, len(channels), STRIP))
    total: dict[int, int] = {}
    for strip in strips:
        colours, counts = np.unique(_packed(strip[..., 0], strip[..., 1], strip[..., 2]), return_counts=True)
        for colour, count in zip(colours.tolist(), counts.tolist(), strict=True):
            total[colour] = total.get(colour, 0) + count
    ordered = sorted(total, key=lambda colour: (-total[colour], colour))
    shown = [f"#{colour:06x}" for colour in ordered[:SHOWN]]
    return shown + ([f"{len(ordered) - SHOWN} more"] if len(ordered) > SHOWN else [])


def grid_pixels(length: int, factor: int) -> NDArray[np.int64]:
    """Image pixels at the centres of the blocks of the latent grid, on an axis of `length` image pixels."""
    return np.arange(factor // 2, length, factor)


def on_grid(label_map: LabelMap, factor: int) -> LabelMap:
    """Label map (H, W) at the latent grid (H/f, W/f) by nearest: the pixel at each block's centre."""
    rows, columns = (grid_pixels(length, factor) for length in label_map.shape)
    return label_map[rows[:, None], columns]
