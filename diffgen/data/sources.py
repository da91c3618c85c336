"""Finding the source files: a fixed order, a name of its own for each, and no file twice."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from os.path import realpath
from pathlib import Path

from diffgen.errors import UserError

PLAIN = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
TIFF = {".tif", ".tiff"}
SLIDES = {".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".svslide", ".bif"}
LOSSLESS = {".png"} | TIFF
"""What a label map may come in."""
MASK = "_mask.png"


@dataclass(frozen=True)
class Source:
    """A file to be cut: its name in the data set (unique), where it lies, its folder's name, its mask."""

    name: str
    path: str
    folder: str
    root: str
    mask: str | None = None

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
