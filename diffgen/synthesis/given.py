"""Sizes, regions and reference pictures that a user gives, read and checked.

Every fault is a `UserError` that names the file, before any work starts.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffgen.appearance import Appearance, Vector, measure
from diffgen.config import check_sides
from diffgen.errors import UserError, one_line
from diffgen.models import bundle
from diffgen.sampling import baselines
from diffgen.sampling.covers import Area
from diffgen.shards import open_picture

Size = tuple[int, int]
"""Height and width in pixels."""


def check_size(size: Size, facts: bundle.GeneratorConfig, what: str) -> None:
    """A multiple of the autoencoder's factor, from one patch up; else `UserError`."""
    check_sides(size, facts.factor, facts.image_patch, what)


def check_region(
    text: str | None, sizes: Sequence[Size], factor: int, cover: str, tile: int | None
) -> Area | None:
    """The region `X,Y,W,H` of images of these sizes as y0, x0, y1, x1 in pixels; else `UserError`."""
    if text is None:
        return None
    what = f"--region {text}"
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"{what}: expected X,Y,W,H in pixels, such as 40000,20000,2048,2048") from None
    if cover in baselines.BASELINES:
        raise UserError(
            f"{what}: not with sampling.cover={cover}; jittered, random and aligned have one owner a pixel"
        )
    if tile is not None:
        raise UserError(f"{what}: written as one image, not with --emit tiles")
    if any(value % factor for value in (x, y, width, height)):
        raise UserError(f"{what}: all four must be multiples of {factor}, the latent grid")
    for rows, columns in dict.fromkeys(sizes):
        if min(x, y) < 0 or min(width, height) <= 0 or x + width > columns or y + height > rows:
            raise UserError(f"{what}: not inside of the image of {columns}x{rows}")
    return y, x, y + height, x + width


def read_references(
    paths: Sequence[Path], appearance: Appearance | None, bundle_name: Path
) -> tuple[tuple[str, Vector], ...]:
    """Name and standardised appearance of each picture (of a folder: of all in it), in order.

    Raises `UserError`, which names the picture that cannot be read.
    """
    if paths and appearance is None:
        raise UserError(f"--appearance: the image model of {bundle_name} is not conditioned on an appearance")
    found = []
    for path in paths:
        inside = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
        if not inside:
            raise UserError(f"--appearance {path}: no picture in this folder")
        for one in inside:
            try:
                picture = np.asarray(open_picture(one).convert("RGB"))
            except (OSError, ValueError) as error:
                raise UserError(f"--appearance {one}: not a readable picture ({one_line(error)})") from error
            assert appearance is not None
            found.append((one.name, appearance.standardized(measure(picture))))
    return tuple(found)
