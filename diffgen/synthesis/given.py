"""What a user gives, read and checked: sizes, regions, reference pictures, and label maps to be filled, which
are brought to the classes and the scale of a bundle.

Every fault is a `UserError` that names the file, before any work starts.
"""

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor
from rich.console import Console

from diffgen import config, label_maps, progress
from diffgen.appearance import Appearance, Vector, measure
from diffgen.config import check_sides
from diffgen.errors import UserError, one_line
from diffgen.labels import UNKNOWN, LabelMap, Labels
from diffgen.models import bundle
from diffgen.sampling import baselines
from diffgen.sampling.covers import Area
from diffgen.shards import open_picture

Size = tuple[int, int]
"""Height and width in pixels."""
SHOWN = 8


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


@dataclass(frozen=True)
class ClassTable:
    """Which class each value, or colour, of label maps from elsewhere is; what it lacks is unknown."""

    ids: Mapping[int, int]
    """Pixel value → class id."""
    colours: Mapping[str, int]
    """Colour → pixel value, which is the class id."""

    def read(self, data: bytes, name: str) -> tuple[LabelMap, set[int]]:
        """Class ids (H, W) of a label map's file, and the values in it that the table lacks.

        Raises `UserError`, with its name, where it is none.
        """
        values = label_maps.read_values(data, name, self.colours or None)
        if self.colours:
            return values.astype(np.uint8), set()
        there = {int(value) for value in np.unique(values)}
        table = np.full(max(there) + 1, UNKNOWN, np.uint8)
        for value, class_id in self.ids.items():
            if value < len(table):
                table[value] = class_id
        return table[values], there - set(self.ids) - {UNKNOWN}


def class_table(said: Mapping[int | str, int | str], labels: Labels) -> ClassTable | None:
    """The table of `synthesis.mask_classes`; None where there is none; `UserError` names a wrong entry."""
    if not said:
        return None
    by_name = {name.casefold(): i for i, name in enumerate(labels.classes)}
    ids: dict[int, int] = {}
    colours: dict[str, int] = {}
    for key, name in said.items():
        class_id = by_name.get(name.casefold()) if isinstance(name, str) else name
        if class_id is None or not 0 <= class_id < len(labels):
            raise UserError(
                f"synthesis.mask_classes: {name!r} is no class; the bundle has {', '.join(labels.classes)}"
            )
        if isinstance(key, int) or key.isdecimal():
            ids[int(key)] = class_id
            continue
        try:
            ImageColor.getrgb(key)
        except ValueError:
            raise UserError(f"synthesis.mask_classes: {key!r} is no value and no colour") from None
        colours[key] = class_id
    if ids and colours:
        raise UserError("synthesis.mask_classes: either values or colours, not both")
    return ClassTable(ids, colours)


def scaled(label_map: LabelMap, factor: float, multiple: int) -> LabelMap:
    """A label map (H, W) `factor` times as large by nearest, its sides cut to multiples of `multiple`."""
    rows, columns = (int(round(side * factor, 6)) // multiple * multiple for side in label_map.shape)
    y, x = (((np.arange(n) + 0.5) / factor).astype(np.int64) for n in (rows, columns))
    return label_map[np.minimum(y, label_map.shape[0] - 1)[:, None], np.minimum(x, label_map.shape[1] - 1)]


def read_masks(
    folder: Path,
    synthesis: config.Synthesis,
    facts: bundle.GeneratorConfig,
    labels: Labels,
    console: Console | None = None,
) -> tuple[tuple[tuple[str, bytes], ...], tuple[Size, ...]]:
    """Name and file (PNG, TIFF, …) of each label map of a folder, and their sizes; each is decoded once.

    With `synthesis.mask_classes` or `mask_mpp` the files are new PNGs, in the bundle's classes and scale.
    Raises `UserError`, which names the first bad one. `console` shows a bar, and values without a class.
    """
    paths, console = label_maps.files(folder), console or Console(quiet=True)
    table = class_table(synthesis.mask_classes, labels)
    read = partial(_read_one, folder=folder, facts=facts, labels=labels, table=table, mpp=synthesis.mask_mpp)
    given: list[tuple[str, bytes]] = []
    sizes: list[Size] = []
    lacking: set[int] = set()
    with progress.bar(console, transient=True) as bar, ThreadPoolExecutor() as threads:
        row = bar.add_task("label maps", total=len(paths), figures="read")
        for one, size, more in bar.track(threads.map(read, paths), task_id=row):
            given.append(one)
            sizes.append(size)
            lacking |= more
    if lacking:
        listed = ", ".join(map(str, sorted(lacking)[:SHOWN])) + (", …" if len(lacking) > SHOWN else "")
        console.print(f"note: values without a class in synthesis.mask_classes are unknown: {listed}")
    return tuple(given), tuple(sizes)


def _read_one(
    path: Path,
    folder: Path,
    facts: bundle.GeneratorConfig,
    labels: Labels,
    table: ClassTable | None,
    mpp: float | None,
) -> tuple[tuple[str, bytes], Size, set[int]]:
    name, data, lacking = path.relative_to(folder).as_posix(), path.read_bytes(), set[int]()
    if table is None:
        label_map = label_maps.read(data, str(path))
        if label_map.max() >= len(labels):
            raise UserError(
                f"{path}: class id {label_map.max()} is unknown; the bundle has 0 to {len(labels) - 1} "
                "(--set 'synthesis.mask_classes={7: stroma}' says what other values are)"
            )
    else:
        label_map, lacking = table.read(data, str(path))
    if mpp is not None:
        label_map = scaled(label_map, mpp / facts.mpp, facts.factor)
    check_size(label_map.shape, facts, str(path))
    if table is not None or mpp is not None:
        sink = io.BytesIO()
        Image.fromarray(label_map).save(sink, "PNG", compress_level=1)
        data = sink.getvalue()
    return (name, data), label_map.shape, lacking
