"""Finding the source files: a fixed order, a name of its own for each, no file twice, and each one's context.

The context is the prompt of the mask model: one for all, a file's folder, or from a table. That table is the
data's metadata as a CSV with the columns `file`, `context` and perhaps `group`. A source is looked up by its
name in the data set, then by its file's name, then by its stem; the table may hold more files than there are
sources, but never fewer.
"""

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from os.path import realpath
from pathlib import Path, PurePosixPath

from diffgen.config import Settings
from diffgen.errors import UserError, one_line

PLAIN = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
TIFF = {".tif", ".tiff"}
SLIDES = {".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".svslide", ".bif"}
LOSSLESS = {".png"} | TIFF
"""What a label map may come in."""
MASK = "_mask.png"
GROUP = "group"
"""A column that may be there: sources of one group (a case, a patient) stay on one side of the split."""
MAX_CONTEXTS = 255  # on a mask canvas a context is an 8-bit id, 0 the null one


@dataclass(frozen=True)
class Source:
    """A file to be cut: its name in the data set (unique), where it lies, its folder's name, its mask."""

    name: str
    path: str
    folder: str
    root: str
    mask: str | None = None
    context: str = "tissue"
    group: str = ""
    """Sources of one group stay on one side of the split; without one a source is its own."""

    @property
    def is_map(self) -> bool:
        """A label map without an image is its own mask."""
        return self.mask == self.path


def find_sources(
    paths: Sequence[str], out: Path | None = None, maps: bool = False
) -> tuple[list[Source], list[str]]:
    """Sources in the order of their names, and the names of files that are there twice; with `maps` the
    sources are label maps without images.

    A path is a file, or a folder that is searched recursively. A file reached by two ways (a symlink,
    a folder and the file in it) counts once, so that it cannot be on both sides of the split.
    What lies in `out` is no source, unless it is named itself. Raises `UserError` if a path does not
    exist, is no image, is `out`, or is a folder that holds no image, or none outside `out`.
    """
    found: list[tuple[str, Source]] = []
    kinds = LOSSLESS if maps else PLAIN | TIFF | SLIDES
    for text in paths:
        root = Path(text)
        if not root.exists():
            raise UserError(f"source {text}: no such file or folder")
        if out is not None and root.resolve() == out.resolve():
            raise UserError(f"source {text} and output are the same folder; choose another --out")
        if root.is_dir():
            found += _in_folder(root, out, kinds, maps)
        elif root.suffix.lower() in (kinds if maps else kinds | {".dcm"}):
            found += _sources(root.parent, [root.name], root.parent, maps)
        else:
            what = "no label map (PNG or TIFF)" if maps else "neither a slide nor an image"
            raise UserError(f"source {text}: {what}, by its suffix {root.suffix!r}")
    seen: dict[str, Source] = {}
    twice = []
    for file, source in found:
        if file in seen:
            twice.append(source.name)
        seen.setdefault(file, source)
    return sorted(_unique(list(seen.values())), key=lambda source: source.name), twice


def _in_folder(root: Path, out: Path | None, kinds: set[str], maps: bool) -> list[tuple[str, Source]]:
    """`_sources` of all below a folder, in order, but for what lies in `out`."""
    every: list[tuple[str, Source]] = []
    for folder, _, files in os.walk(root):
        names = [
            name
            for name in files
            if not name.startswith(".")
            and f".{name.rpartition('.')[2].lower()}" in kinds
            and (maps or not name.endswith(MASK))
        ]
        every += _sources(Path(folder), names, root, maps)
    inside = None if out is None else f"{realpath(out)}/"
    found = [pair for pair in every if inside is None or not pair[0].startswith(inside)]
    if every and not found:
        raise UserError(f"source {root}: all of it lies in the output folder {out}; choose another --out")
    if not found:
        what = "label map (PNG or TIFF)" if maps else "slide and no image"
        raise UserError(f"source {root}: no {what} in this folder")
    return sorted(found, key=lambda pair: pair[1].name.split("/"))


def _sources(folder: Path, names: Iterable[str], root: Path, maps: bool) -> Iterator[tuple[str, Source]]:
    """(real path, source) of each of these files in a folder, which is resolved once: it may hold 100,000."""
    absolute, real = folder.absolute(), realpath(folder)
    within = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
    for name in names:
        path = absolute / name
        if path.is_file():
            mask = path if maps else absolute / f"{path.stem}{MASK}"
            there = str(mask) if mask.exists() else None
            file = realpath(path) if path.is_symlink() else f"{real}/{name}"
            yield file, Source(within + name, str(path), absolute.name, str(root), there)


def _unique(sources: list[Source]) -> list[Source]:
    """Names that two roots share get the root's name before them, then the whole path."""
    for rename in (lambda s: f"{Path(s.root).absolute().name}/{s.name}", lambda s: s.path):
        times = Counter(source.name for source in sources)
        sources = [replace(s, name=rename(s)) if times[s.name] > 1 else s for s in sources]
    return sources


def with_contexts(sources: Sequence[Source], settings: Settings) -> list[Source]:
    """The sources with their contexts and groups, by `prepare.contexts`.

    Raises `UserError` for a table that cannot be read, lacks a column, contradicts itself or has no row for a
    source, and for more than 255 contexts.
    """
    kind = settings.prepare.contexts
    if kind == "one":
        return list(sources)
    if kind == "folder":
        found = [replace(source, context=source.folder) for source in sources]
    else:
        table = read_table(Path(kind))
        found = [replace(source, **_look_up(source, table, kind)) for source in sources]
    number = len({source.context for source in found})
    if number > MAX_CONTEXTS:
        raise UserError(f"prepare.contexts {kind}: {number} contexts, at most {MAX_CONTEXTS} fit")
    return found


def read_table(path: Path) -> dict[str, dict[str, str]]:
    """`file` → its `context` and, with such a column, its `group`, of a CSV (UTF-8, with a header).

    Raises `UserError`, with the line's number.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or ()]
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"prepare.contexts {str(path)!r}: neither one, folder nor a readable CSV ({one_line(error)})"
        ) from error
    for column in ("file", "context"):
        if column not in columns:
            raise UserError(f"prepare.contexts {path}: no column {column!r} in its header {columns}")
    table: dict[str, dict[str, str]] = {}
    for line, row in rows:
        for what in ("context", GROUP) if GROUP in columns else ("context",):
            name, value = ((row[column] or "").strip() for column in ("file", what))
            if not name or not value:
                raise UserError(f"prepare.contexts {path}, line {line}: file or {what} is empty")
            known = table.setdefault(name, {}).setdefault(what, value)
            if known != value:
                raise UserError(
                    f"prepare.contexts {path}, line {line}: {name} has the {what} {known!r} already"
                )
    return table


def _look_up(source: Source, table: dict[str, dict[str, str]], path: str) -> dict[str, str]:
    name = PurePosixPath(source.name).name
    for key in (source.name, name, PurePosixPath(name).stem):
        if key in table:
            return table[key]
    raise UserError(f"prepare.contexts {path}: no row for the source {source.name}")
