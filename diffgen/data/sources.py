"""Finding the source files: a fixed order, a name of its own for each, and no file twice."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
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
    real, inside = _resolver(), None if out is None else f"{realpath(out)}/"
    kinds = LOSSLESS if maps else PLAIN | TIFF | SLIDES
    for text in paths:
        root = Path(text)
        if not root.exists():
            raise UserError(f"source {text}: no such file or folder")
        files = sorted(_files(root, inside, kinds, maps, real), key=_parts) if root.is_dir() else [root]
        if out is not None and root.resolve() == out.resolve():
            raise UserError(f"source {text} and output are the same folder; choose another --out")
        if not files and out is not None and any(_files(root, None, kinds, maps, real)):
            raise UserError(f"source {text}: all of it lies in the output folder {out}; choose another --out")
        if not files:
            what = "label map (PNG or TIFF)" if maps else "slide and no image"
            raise UserError(f"source {text}: no {what} in this folder")
        if files == [root] and root.suffix.lower() not in (kinds if maps else kinds | {".dcm"}):
            what = "no label map (PNG or TIFF)" if maps else "neither a slide nor an image"
            raise UserError(f"source {text}: {what}, by its suffix {root.suffix!r}")
        place = root if root.is_dir() else root.parent
        found += [(real(file), _source(file, place, maps)) for file in files]
    seen: dict[str, Source] = {}
    twice = []
    for file, source in found:
        if file in seen:
            twice.append(source.name)
        seen.setdefault(file, source)
    return sorted(_unique(list(seen.values())), key=lambda source: source.name), twice


def _resolver() -> Callable[[Path], str]:
    """`realpath` that looks at each folder once: there may be 100,000 files in one."""
    real_folder = cache(realpath)

    def real(path: Path) -> str:
        return realpath(path) if path.is_symlink() else f"{real_folder(str(path.parent))}/{path.name}"

    return real


def _files(
    root: Path, out: str | None, kinds: set[str], maps: bool, real: Callable[[Path], str]
) -> Iterator[Path]:
    for path in root.rglob("*"):
        if path.suffix.lower() not in kinds or path.name.startswith("."):
            continue
        if (path.name.endswith(MASK) and not maps) or not path.is_file():
            continue
        if out is None or not real(path).startswith(out):
            yield path


def _parts(path: Path) -> tuple[str, ...]:
    return path.parts


def _source(path: Path, root: Path, is_map: bool) -> Source:
    name, path = path.relative_to(root).as_posix(), path.absolute()
    mask = path if is_map else path.with_name(path.stem + MASK)
    return Source(name, str(path), path.parent.name, str(root), str(mask) if mask.exists() else None)


def _unique(sources: list[Source]) -> list[Source]:
    """Names that two roots share get the root's name before them, then the whole path."""
    for rename in (lambda s: f"{Path(s.root).absolute().name}/{s.name}", lambda s: s.path):
        times = Counter(source.name for source in sources)
        sources = [replace(s, name=rename(s)) if times[s.name] > 1 else s for s in sources]
    return sources
