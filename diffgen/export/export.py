"""`diffgen export`: shards → what other tools open, resumable: what is written whole is not written again.

A file comes into its place when it is whole, and a Deep Zoom image is whole when its `.dzi` stands. The
folder belongs to one run, one kind and one quality (`export.json`): another export into it is refused.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console

from diffgen import progress
from diffgen.config import differences
from diffgen.errors import UserError, one_line
from diffgen.export.deep_zoom import descriptor, suffix_of, write_tiles
from diffgen.export.geojson import write_geojson
from diffgen.export.hugging_face import write_dataset
from diffgen.export.ome_tiff import write_ome_tiff
from diffgen.export.plain_folder import write_folder
from diffgen.export.shard_set import Kind, ShardSet, WholeImage
from diffgen.lock import held
from diffgen.storage import Folder, move

KINDS = ("ome-tiff", "geojson", "folder", "hf", "dzi")
FILES: dict[str, dict[Kind, str]] = {
    "ome-tiff": {"png": ".ome.tif", "mask.png": "_mask.ome.tif"},
    "geojson": {"mask.png": ".geojson"},
    "dzi": {"png": ".dzi", "mask.png": "_mask.dzi"},
}
"""Kinds that write whole images, and how the files of one are called."""
MARK = "export.json"
LOSSY = {"ome-tiff", "dzi"}
"""Kinds that `jpeg` is said of; the others hold PNGs as they are in the shards, or outlines."""


def export(where: str, kind: str, out: str | None, jpeg: int | None, console: Console) -> str:
    """Write the samples of the shards at `where` as `kind` under `out`; the folder or URL they are in.

    Without `out` that is beside the shards: `out-ome-tiff`. Raises `UserError` where there are no finished
    shards, the folder holds something else, or a label map a class without a name.
    """
    check(kind, jpeg)
    shards = ShardSet(where)
    folder = Folder(out or f"{shards.folder}-{kind}")
    said = {"kind": kind, "jpeg": jpeg, "run": shards.run}
    with folder.answering(), held(folder, "--out"):
        _claim(folder, said)
        folder.clean()
        folder.write_text("labels.json", json.dumps(shards.labels.to_json(), indent=2) + "\n")
        _write(shards, kind, folder, jpeg, console)
    return folder.url


def check(kind: str, jpeg: int | None = None) -> None:
    """`UserError` where that cannot be exported."""
    if kind not in KINDS:
        raise UserError(f"export to {kind!r}: expected {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    if jpeg is not None and kind not in LOSSY:
        raise UserError(f"--jpeg is of {' and '.join(sorted(LOSSY))}, not of {kind}")
    if jpeg is not None and not 1 <= jpeg <= 100:
        raise UserError(f"--jpeg {jpeg}: a quality lies between 1 and 100")


def _claim(folder: Folder, said: Mapping[str, Any]) -> None:
    """Make the folder that of an export, or find that it is."""
    text = folder.read_text(MARK)
    if text is None:
        if entries := folder.entries():
            raise UserError(f"{folder} is not empty ({entries[0]}) and was not made by diffgen export")
        folder.write_text(MARK, json.dumps(said, indent=2, sort_keys=True) + "\n")
        return
    try:
        old = json.loads(text)
    except ValueError as error:
        raise UserError(f"{folder}: {MARK} is not readable ({one_line(error)})") from error
    if changed := differences(old, json.loads(json.dumps(said))):
        raise UserError(f"{folder} holds another export: {'; '.join(changed[:3])}; choose another --out")


def _write(shards: ShardSet, kind: str, folder: Folder, jpeg: int | None, console: Console) -> None:
    """What the folder lacks of the export."""
    files = FILES.get(kind)
    images = shards.images if files else []
    total = sum(image.samples for image in images) * len(files or ()) or len(shards)
    with progress.bar(console) as bar:
        task = bar.add_task(f"export {kind}", total=total, figures="pictures, label maps" if files else "")

        def advance(steps: int) -> None:
            bar.advance(task, steps)

        if kind == "folder":
            write_folder(shards, folder, advance)
        elif kind == "hf":
            write_dataset(shards, folder, advance)
        there = {*folder.files("")}
        for image, (what, suffix) in product(images, (files or {}).items()):
            name = image.name + suffix
            if name in there:
                advance(image.samples)
                continue
            with folder.scratch() as scratch:
                _put(replace(image, read=advance), what, name, folder, jpeg, scratch)


def _put(image: WholeImage, what: Kind, name: str, folder: Folder, jpeg: int | None, scratch: Path) -> None:
    """One picture, or one label map, whole into its place."""
    built = scratch / "built"
    if name.endswith(".tif"):
        write_ome_tiff(image, what, built, jpeg, scratch)
    elif name.endswith(".geojson"):
        write_geojson(image, built)
    else:
        tiles = scratch / f"{name.removesuffix('.dzi')}_files"
        write_tiles(image, what, tiles, jpeg, scratch)
        _put_folder(tiles, folder)
        built.write_bytes(descriptor(image.height, image.width, suffix_of(what, jpeg)))
    folder.upload(built, name)


def _put_folder(built: Path, folder: Folder) -> None:
    """A folder into its place, over what a killed export left of it."""
    if folder.local is None:
        folder.push(built, built.name)
        return
    folder.remove(built.name)
    move(built, folder.local / built.name)
