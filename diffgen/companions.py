"""What each file of a folder is, by its name: a picture, the label map or the outlines of one, or neither.

Names as laboratories have them: `a_mask.png`, `a-labels.TIF`, `a_anno.bmp`, `a.tif_mask.png`, `masks/a.png`
beside `a.png` or `images/a.png`, in any case. Pure functions of paths with `/`; no file is opened.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

PLAIN = (".png", ".bmp", ".webp", ".jp2", ".jpg", ".jpeg")
TIFF = (".tif", ".tiff")
SLIDES = (
    ".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".svslide", ".bif", ".czi", ".avs", ".qptiff", ".dcm",
)  # fmt: skip
PICTURES = (*SLIDES, *TIFF, *PLAIN)
"""Of two pictures of one name the one whose suffix stands first is taken."""
LABEL_MAPS = (".png", *TIFF, ".bmp")
"""What a label map may come in: nothing that changes values."""
LOSSY = (".jpg", ".jpeg", ".webp", ".jp2")
OUTLINES = (".geojson", ".geojson.gz", ".json", ".xml", ".annotations")

WITHOUT_PICTURE = "a label map without a picture, by its name"

WORDS = (
    "mask", "masks", "label", "labels", "labelled", "labeled", "labelmap", "seg", "segmentation",
    "segmentations", "anno", "annotation", "annotations", "gt", "groundtruth", "ground_truth",
)  # fmt: skip
"""What the name of a label map, or of a folder of them, ends in. A name before another here goes first."""
_WORD = "|".join(sorted(WORDS, key=len, reverse=True))
_NAMED = re.compile(rf"(?P<of>.+?)[ ._-]+(?P<word>{_WORD})", re.IGNORECASE)
_FOLDER = re.compile(rf"(?:.*[ ._-])?(?:{_WORD}|label[ _-]?maps|outlines|geojson|xml)", re.IGNORECASE)


@dataclass
class Companions:
    """Pictures in the order of their paths, what belongs to them, and why other files are passed by."""

    pictures: list[str] = field(default_factory=list)
    masks: dict[str, str] = field(default_factory=dict)
    """Picture → its label map."""
    outlines: dict[str, str] = field(default_factory=dict)
    """Picture → its vector annotations."""
    passed: dict[str, str] = field(default_factory=dict)
    """File → why it is no picture and belongs to none."""


@dataclass(frozen=True)
class _File:
    path: str
    suffix: str
    parts: tuple[str, ...]
    """Folders, without case."""
    name: str
    stem: str
    """Name and stem without case."""
    of: str | None
    """Stem of the picture that the name says it belongs to, without case."""
    word: int
    """Place of its word in `WORDS`."""
    within: int | None = None
    """Place of the folder of label maps among `parts`."""

    @property
    def said(self) -> bool:
        """Whether its name or folder says that it belongs to a picture."""
        return self.suffix not in SLIDES and (self.of is not None or self.within is not None)


def suffix_of(path: str) -> str:
    """The suffix in lower case; `.geojson.gz` is one."""
    pure = PurePosixPath(path.lower())
    return "".join(pure.suffixes[-2:]) if pure.name.endswith(".geojson.gz") else pure.suffix


def is_mask_folder(name: str) -> bool:
    """Whether a folder's name says that it holds label maps or outlines."""
    return _FOLDER.fullmatch(name) is not None


def is_companion(name: str) -> bool:
    """Whether a file's name says that it belongs to another: by a word for label maps, or as outlines."""
    return suffix_of(name) in OUTLINES or (suffix_of(name) in PICTURES and _file(name).of is not None)


def pair(paths: Iterable[str]) -> Companions:
    """The companions among files of these paths, relative to one folder; files of other kinds are ignored."""
    files = _within_folders([_file(path) for path in sorted(paths)])
    found = Companions()
    pictures = _one_per_name([f for f in files if f.suffix in PICTURES and not f.said], found)
    found.pictures = [file.path for file in pictures]
    by_place = _by_place(pictures, any(file.within is not None for file in files))
    masks: dict[str, list[_File]] = defaultdict(list)
    for file in files:
        drawn = file.suffix in OUTLINES
        if not drawn and not (file.said and file.suffix in PICTURES):
            continue
        owners = _owners(file, by_place)
        if len(owners) > 1:
            found.passed[file.path] = f"belongs to several pictures: {', '.join(owners[:3])}"
        elif drawn:
            if owners:
                found.outlines.setdefault(owners[0], file.path)
        elif not owners:
            found.passed[file.path] = WITHOUT_PICTURE
        elif file.suffix not in LABEL_MAPS:
            found.passed[file.path] = (
                f"a label map in {file.suffix[1:].upper()} has other ids: save it as PNG"
            )
        else:
            masks[owners[0]].append(file)
    for picture, several in masks.items():
        first, *others = sorted(several, key=lambda file: (file.within is not None, file.word, file.path))
        found.masks[picture] = first.path
        reason = f"another label map of its picture: {first.path} is used"
        found.passed |= {other.path: reason for other in others}
    return found


def _within_folders(files: Sequence[_File]) -> list[_File]:
    """The files, with the folders of label maps that they are in.

    A folder is one where its name says so and a picture outside it answers to a file in it: `colon_seg/` with
    pictures of its own is a data set.
    """
    told = {parts for file in files for parts in _prefixes(file) if is_mask_folder(parts[-1])}
    if not told:
        return list(files)
    by_place = _by_place([f for f in files if f.suffix in PICTURES and f.of is None], True)
    real: set[tuple[str, ...]] = set()
    for file in files:
        for parts in _prefixes(file):
            if parts in told - real:
                owners = _owners(replace(file, within=len(parts) - 1), by_place, beside=False)
                if any(not _inside(owner, parts) for owner in owners):
                    real.add(parts)
    return [
        replace(file, within=max((len(p) - 1 for p in _prefixes(file) if p in real), default=None))
        for file in files
    ]


def _prefixes(file: _File) -> Iterator[tuple[str, ...]]:
    """Each of the folders that it is in, with those above."""
    return (file.parts[: i + 1] for i in range(len(file.parts)))


def _inside(path: str, folders: tuple[str, ...]) -> bool:
    return tuple(path.lower().split("/")[: len(folders)]) == folders


def _file(path: str) -> _File:
    *folders, name = path.lower().split("/")
    suffix = suffix_of(path)
    stem = name.removesuffix(suffix).removesuffix(".ome")
    named = _NAMED.fullmatch(stem)
    of = named["of"].removesuffix(".ome") if named else None
    word = WORDS.index(named["word"]) if named else len(WORDS)
    return _File(path, suffix, tuple(folders), name, stem, of, word)


def _one_per_name(pictures: Sequence[_File], found: Companions) -> list[_File]:
    """Of pictures that differ in nothing but their suffix the first by `PICTURES`."""
    names: dict[tuple[str, ...], list[_File]] = defaultdict(list)
    for file in pictures:
        alone = file.suffix == ".dcm"  # many files are one slide, and their names say nothing
        names[*file.parts, file.path if alone else _stem_with_case(file)].append(file)
    kept = []
    for several in names.values():
        first, *others = sorted(several, key=lambda file: PICTURES.index(file.suffix))
        kept.append(first)
        found.passed |= {
            other.path: f"another picture of this name: {first.path} is used" for other in others
        }
    return sorted(kept, key=lambda file: file.path)


def _stem_with_case(file: _File) -> str:
    return file.path.rpartition("/")[2][: len(file.stem)]


Place = tuple[int | None, tuple[str, ...], str]
"""Which of its folders is left out, the others, and a stem or a name."""


def _by_place(pictures: Sequence[_File], folders: bool) -> dict[Place, list[str]]:
    """Pictures by their folders and their stems, or names; with `folders` also by all of these but one."""
    places: dict[Place, list[str]] = defaultdict(list)
    for file in pictures:
        for key in {file.stem, file.name}:
            places[None, file.parts, key].append(file.path)
            for i in range(len(file.parts)) if folders else ():
                places[i, file.parts[:i] + file.parts[i + 1 :], key].append(file.path)
    return places


def _owners(file: _File, by_place: dict[Place, list[str]], beside: bool = True) -> list[str]:
    """The pictures that a label map, or outlines, belong to: `beside` it, above it, or beside its folder.

    Of pictures whose names differ in their case alone the one that is written like it.
    """
    where: list[tuple[int | None, tuple[str, ...]]] = [(None, file.parts)] if beside else []
    if (i := file.within) is not None:
        rest = file.parts[:i] + file.parts[i + 1 :]
        where += [(None, rest), (i, rest)]
    stems = [file.stem] if file.of is None else [file.of, file.stem]
    for place in where:
        for stem in stems:
            owners = [path for path in by_place.get((*place, stem), ()) if path != file.path]
            if owners:
                name = file.path.rpartition("/")[2]
                return [path for path in owners if name.startswith(_own_stem(path))] or owners
    return []


def _own_stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0].removesuffix(".ome")
