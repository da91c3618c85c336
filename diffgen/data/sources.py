"""Finding the source files: a fixed order, a name of its own for each, no file twice, none without a word.

What belongs to what is decided by names (`companions.pair`). Hidden files and folders are passed by, links
are followed once. A file that is named by itself (or by a shell's `*`) is read like one that is found in its
folder.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from os.path import realpath
from pathlib import Path

from diffgen.companions import (
    LABEL_MAPS,
    OUTLINES,
    PICTURES,
    Companions,
    is_companion,
    is_mask_folder,
    pair,
    suffix_of,
)
from diffgen.config import Settings
from diffgen.data.annotations import of_many
from diffgen.data.fetch import local
from diffgen.data.formats.base import LeftOut
from diffgen.data.formats.dicom import dicom_series
from diffgen.data.formats.scanners import parts_of_slide
from diffgen.errors import UserError

PART = 2**14
PASSED_FOLDERS = {"__MACOSX", "@eaDir"}
"""What systems put beside files, hidden but for their names."""


@dataclass(frozen=True)
class Source:
    """A file to be cut: its name in the data set (unique), where it lies, what belongs to it."""

    name: str
    path: str
    folder: str
    root: str
    mask: str | None = None
    outlines: str | None = None
    """File of its vector annotations."""
    context: str = "tissue"
    group: str = ""
    """Sources of one group (a patient) stay on one side of the split; without one a source is its own."""
    kin: str = ""
    """The group with those of copies of its picture, which are on the same side too."""
    split: str | None = None
    """The side that a table says it is on."""
    stain: tuple[float, float] | None = None
    """Strength of its stains, where its labels come from them."""

    @property
    def is_map(self) -> bool:
        """A label map without an image is its own mask."""
        return self.mask == self.path

    def mpp_by(self, overrides: Mapping[str, float]) -> float | None:
        """µm per pixel by the first pattern that fits its name, its file's name or its folder."""
        names = (self.name, Path(self.name).name, str(Path(self.name).parent))
        return next(
            (mpp for pattern, mpp in overrides.items() if any(fnmatch(n, pattern) for n in names)), None
        )


@dataclass
class Found:
    """The sources in the order of their names, and what became of every other file."""

    sources: list[Source] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Name → why it is no source and belongs to none."""
    unread: Counter[str] = field(default_factory=Counter)
    """Suffix → number of files of kinds that are not looked at."""


def find_sources(paths: Sequence[str], out: Path | None = None, maps: bool = False) -> Found:
    """All sources; with `maps` they are label maps without images.

    A path is a file, or a folder that is searched recursively. A file reached by two ways (a link, a folder
    and the file in it) counts once, so that it cannot be on both sides of the split. What lies in `out` is no
    source, unless it is named itself. Raises `UserError` if a path does not exist, is no image, is `out`, or
    is a folder that holds no image, or none outside `out`.
    """
    found, seen, pairs = Found(), dict[str, str](), list[tuple[str, Source]]()
    named: dict[Path, list[str]] = {}
    for text in paths:
        root = Path(text)
        if not root.exists():
            raise UserError(f"source {text}: no such file or folder")
        if out is not None and root.resolve() == out.resolve():
            raise UserError(f"source {text} and output are the same folder; choose another --out")
        if root.is_dir():
            pairs += _in_folder(root, out, maps, found)
        elif suffix_of(root.name) in (LABEL_MAPS if maps else PICTURES):
            named.setdefault(root.parent, []).append(root.name)
        elif maps or suffix_of(root.name) not in OUTLINES:
            what = "no label map (PNG, TIFF or BMP)" if maps else "neither a slide nor an image"
            raise UserError(f"source {text}: {what}, by its suffix {root.suffix!r}")
    for folder, names in named.items():
        pairs += _by_name(folder, names, maps, found)
    sources = []
    for file, source in pairs:
        if not _is_text(source.name):
            found.left_out[source.name.encode("utf-8", "replace").decode()] = (
                "its name is not UTF-8: rename it"
            )
        elif file in seen:
            found.left_out[source.name] = f"the same file as {seen[file]}"
        else:
            sources.append(source)
        seen.setdefault(file, source.name)
    found.sources = sorted(_unique(sources), key=lambda source: source.name)
    return found


def _is_text(name: str) -> bool:
    """Whether a file's name can be written: those of other encodings come as lone surrogates."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _in_folder(root: Path, out: Path | None, maps: bool, found: Found) -> list[tuple[str, Source]]:
    """(real path, source) of all below a folder, in order, but for what lies in `out`."""
    files = dict(_walk(root, ""))
    inside = None if out is None else f"{realpath(out)}/"
    outside = {name: file for name, file in files.items() if inside is None or not file.startswith(inside)}
    sources = list(_sources(root, outside, None, maps, found))
    if not sources:
        kinds = LABEL_MAPS if maps else PICTURES
        if any(suffix_of(name) in kinds for name in files.keys() - outside.keys()):
            raise UserError(f"source {root}: all of it lies in the output folder {out}; choose another --out")
        if not found.left_out:
            what = "label map (PNG, TIFF or BMP)" if maps else "slide and no image"
            raise UserError(f"source {root}: no {what} in this folder")
    return sorted(sources, key=lambda item: item[1].name.split("/"))


def _by_name(folder: Path, names: Sequence[str], maps: bool, found: Found) -> Iterator[tuple[str, Source]]:
    """The same of files that are named one by one: what belongs to them is looked for beside them."""
    real, chosen = realpath(folder), set(names)
    beside: list[str] = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir() and is_mask_folder(entry.name):
            beside += [f"{entry.name}/{name}" for name, _ in _walk(folder / entry.name, "")]
        elif entry.name in chosen or is_companion(entry.name):
            beside.append(entry.name)
    files = {name: f"{real}/{name}" for name in beside}
    files |= {name: realpath(folder / name) for name in names if (folder / name).is_symlink()}
    yield from _sources(folder, files, chosen, maps, found)


def _walk(root: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """(path below `root` with `prefix` before it, real path) of all files; each folder is entered once."""
    entered = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = realpath(folder)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        slides = {
            name[:-5] for name in names if name.lower().endswith(".mrxs")
        }  # each has a folder of its own
        folders[:] = sorted(d for d in folders if d[0] != "." and d not in PASSED_FOLDERS and d not in slides)
        within = "" if Path(folder) == root else f"{Path(folder).relative_to(root).as_posix()}/"
        parts = {Path(part).name for name in names for part in parts_of_slide(str(Path(folder, name)))}
        for name in sorted(names):
            path = Path(folder, name)
            if name[0] != "." and name not in parts and path.is_file():
                yield prefix + within + name, realpath(path) if path.is_symlink() else f"{real}/{name}"


def _sources(
    root: Path, files: dict[str, str], chosen: set[str] | None, maps: bool, found: Found
) -> Iterator[tuple[str, Source]]:
    """The sources among files below a root (name → real path), with what belongs to them.

    `chosen` are the names asked for, or all. Label maps may lie in folders beside the root, too.
    """
    above = {} if maps else _beside(root)
    prefix = f"{root.absolute().name}/" if above else ""
    names = {prefix + name: name for name in files} | {name: f"../{name}" for name in above}
    paired = pair(names)
    absolute = root.absolute()
    for name in files:
        if suffix_of(name) not in (*PICTURES, *OUTLINES, ".csv"):
            found.unread[suffix_of(name) or "no suffix"] += 1
    wanted = _maps(paired, names) if maps else paired.pictures
    dicom = [path for path in wanted if suffix_of(path) == ".dcm"]
    if dicom:
        series = dicom_series(str(absolute / names[path]) for path in dicom)
        opened = {files_of[0] for files_of in series.slides}
        wanted = [p for p in wanted if p not in dicom or str(absolute / names[p]) in opened]
        found.left_out |= {
            str(Path(file).relative_to(absolute)): why for file, why in series.passed_by.items()
        }
    for path in wanted:
        name = names[path]
        if path in above or (chosen is not None and name not in chosen):
            continue
        mask, outlines = (
            None if of is None else str(absolute / names[of])
            for of in (path if maps else paired.masks.get(path), paired.outlines.get(path))
        )
        file = absolute / name
        yield files[name], Source(name, str(file), file.parent.name, str(root), mask, outlines)
    passed = {} if maps else paired.passed
    named = {names[path]: reason for path, reason in passed.items()}
    found.left_out |= {n: why for n, why in named.items() if chosen is None or n in chosen}


def _maps(paired: Companions, names: Iterable[str]) -> list[str]:
    """The label maps: those of pictures, where there are such, else all that can be one."""
    return sorted(paired.masks.values()) or sorted(n for n in names if suffix_of(n) in LABEL_MAPS)


def _beside(root: Path) -> dict[str, str]:
    """What lies in folders of label maps beside a root, such as `masks/` beside `images/`."""
    absolute = root.absolute()
    if is_mask_folder(absolute.name):
        return {}
    try:
        folders = [entry.name for entry in os.scandir(absolute.parent) if entry.is_dir()]
    except OSError:  # a folder above that may not be read
        return {}
    return {
        name: file
        for folder in sorted(folders)
        if is_mask_folder(folder) and folder != absolute.name
        for name, file in _walk(absolute.parent / folder, f"{folder}/")
    }


def with_outlines(sources: Sequence[Source], settings: Settings) -> list[Source]:
    """The sources with the outlines of `prepare.annotations`, by name or stem; one file of COCO is of all.

    Raises `UserError` where the folder is none, and where two files answer to one source.
    """
    if settings.prepare.annotations is None:
        return list(sources)
    folder = local(settings.prepare.annotations)
    files = [folder] if folder.is_file() else [folder / name for name, _ in _walk(folder, "")]
    files = [file for file in files if suffix_of(file.name) in OUTLINES]
    if not files:
        raise UserError(f"--annotations {folder}: no annotations ({', '.join(OUTLINES)}) there")
    by_stem: dict[str, list[Path]] = {}
    for file in files:
        by_stem.setdefault(file.name.lower().removesuffix(suffix_of(file.name)), []).append(file)
    try:
        shared = files if len(files) == 1 and of_many(str(files[0])) else []
    except LeftOut as error:
        raise UserError(f"--annotations {files[0]}: {error}") from error
    found = []
    for source in sources:
        name = Path(source.name).name.lower()
        own = by_stem.get(name) or by_stem.get(name.removesuffix(suffix_of(name)).removesuffix(".ome")) or []
        if len(own) > 1:
            raise UserError(f"--annotations {folder}: several are of {source.name}: {own[0]}, {own[1]}")
        own = own or shared
        found.append(replace(source, outlines=str(own[0].absolute())) if own else source)
    return found


def identity(path: Path) -> str:
    """What tells a file from others at a glance: its size, and a digest of its beginning, middle and end."""
    size = path.stat().st_size
    found = hashlib.sha1()
    with path.open("rb") as file:
        for place in (0, size // 2, max(0, size - PART)):
            file.seek(place)
            found.update(file.read(PART))
    return f"{size}-{found.hexdigest()[:12]}"


def _unique(sources: list[Source]) -> list[Source]:
    """Names that two roots share get the root's name before them, then the whole path."""
    for rename in (lambda s: f"{Path(s.root).absolute().name}/{s.name}", lambda s: s.path):
        times = Counter(source.name for source in sources)
        sources = [replace(s, name=rename(s)) if times[s.name] > 1 else s for s in sources]
    return sources
