"""What a user gives to be filled or looked like: label maps and reference pictures, read and checked.

Every fault is a `UserError` that names the file, before any work starts.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

from diffgen import label_maps, progress
from diffgen.appearance import Appearance, Vector, measure
from diffgen.config import check_sides
from diffgen.errors import UserError, one_line
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.shards import open_picture

Size = tuple[int, int]
"""Height and width in pixels."""


def check_size(size: Size, facts: bundle.GeneratorConfig, what: str) -> None:
    """A multiple of the autoencoder's factor, from one patch up; else `UserError`."""
    check_sides(size, facts.factor, facts.image_patch, what)


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


def read_masks(
    folder: Path, facts: bundle.GeneratorConfig, labels: Labels, console: Console | None = None
) -> tuple[tuple[tuple[str, bytes], ...], tuple[Size, ...]]:
    """Name and file of each label map of a folder, and their sizes; each is decoded once.

    Raises `UserError`, which names the first bad one. `console` shows a bar.
    """
    paths = label_maps.files(folder)
    found: list[tuple[tuple[str, bytes], Size]] = []
    with (
        progress.bar(console or Console(quiet=True), transient=True) as bar,
        ThreadPoolExecutor() as threads,
    ):
        row = bar.add_task("label maps", total=len(paths), figures="read")
        for one in threads.map(partial(_read_one, folder=folder, facts=facts, labels=labels), paths):
            found.append(one)
            bar.advance(row)
    given, sizes = zip(*found, strict=True)
    return given, sizes


def _read_one(
    path: Path, folder: Path, facts: bundle.GeneratorConfig, labels: Labels
) -> tuple[tuple[str, bytes], Size]:
    data = path.read_bytes()
    label_map = label_maps.read(data, str(path))
    size = label_map.shape
    check_size(size, facts, str(path))
    if label_map.max() >= len(labels):
        raise UserError(
            f"{path}: class id {label_map.max()} is unknown; the bundle has 0 to {len(labels) - 1}"
        )
    return (path.relative_to(folder).as_posix(), data), size
