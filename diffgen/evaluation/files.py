"""WebDataset shards and folders of images as a set of images.

Invariants: a set is read whole or not at all. A shard that is cut short, a run of `diffgen synthesize` that
is not finished and a label map that is missing among others are errors that name it, before any work.
"""

import hashlib
import json
import tarfile
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow.fs
from PIL import Image
from rich.console import Console

from diffgen import label_maps, progress
from diffgen.companions import WITHOUT_PICTURE, pair, suffix_of
from diffgen.errors import UserError, one_line
from diffgen.evaluation.images import Images, Region, RegionSet
from diffgen.labels import LabelMap, Labels, Picture
from diffgen.shards import members, open_picture, shown_size, turn_upright
from diffgen.urls import CHUNK, open_url

PICTURES = ("png", "jpg", "jpeg", "webp", "tif", "tiff", "bmp")
MASK = "mask.png"
"""`KEY.mask.png` in a shard."""
HEAD = 1 << 16  # bytes in which nearly every image says its size
SHOWN = 4
CACHED = 4
"""Decoded images kept: the regions of one image come one after the other."""
SMALL_ONES = 0.1
"""Share of the images that may be smaller than the regions; they are left out."""
END = bytes(1024)
"""What a whole tar ends with."""


@dataclass(frozen=True)
class ByteRange:
    """Bytes of a file."""

    path: str
    offset: int
    size: int


@dataclass(frozen=True)
class ImageEntry:
    """An image of a set."""

    key: str
    source: str
    picture: ByteRange
    mask: ByteRange | None
    height: int
    width: int


class Files(Images):
    """Images that are members of tars, or files of their own."""

    def __init__(
        self, where: str, entries: list[ImageEntry], labels: Labels | None, mpp: float | None
    ) -> None:
        self.where, self.labels, self.mpp = where, labels, mpp
        self.entries = {entry.key: entry for entry in entries}
        self._decoded: OrderedDict[str, tuple[Picture, LabelMap | None]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_decoded": OrderedDict()}

    @property
    def largest(self) -> int:
        sides = sorted(min(entry.height, entry.width) for entry in self.entries.values())
        return sides[int(SMALL_ONES * len(sides))]

    def smaller_than(self, side: int) -> int:
        return sum(min(entry.height, entry.width) < side for entry in self.entries.values())

    def regions(self, side: int) -> list[Region]:
        return [
            Region(entry.key, entry.source, y, x, side, entry.mask is not None)
            for entry in self.entries.values()
            for y in range(0, entry.height - side + 1, side)
            for x in range(0, entry.width - side + 1, side)
        ]

    def covering(self, side: int) -> RegionSet:
        return RegionSet(
            self,
            tuple(
                Region(entry.key, entry.source, y, x, side, entry.mask is not None)
                for entry in self.entries.values()
                for y in _covering(entry.height, side)
                for x in _covering(entry.width, side)
            ),
        )

    def read(self, region: Region) -> tuple[Picture, LabelMap | None]:
        picture, labels = self._whole(region.image)
        return picture[region.box], None if labels is None else labels[region.box]

    def _whole(self, key: str) -> tuple[Picture, LabelMap | None]:
        if key not in self._decoded:
            entry = self.entries[key]
            filesystem, _ = open_url(self.where)
            picture = np.asarray(self._open(filesystem, entry.picture, key).convert("RGB"))
            labels = None
            if entry.mask is not None:
                labels = label_maps.read(_bytes(filesystem, entry.mask), f"{self.where}: label map of {key}")
                if labels.shape != picture.shape[:2]:
                    raise UserError(f"{self.where}: the label map of {key} has another size than its image")
            self._decoded[key] = (picture, labels)
            while len(self._decoded) > CACHED:
                self._decoded.popitem(last=False)
        self._decoded.move_to_end(key)
        return self._decoded[key]

    def _open(self, filesystem: Any, piece: ByteRange, key: str) -> Image.Image:
        try:
            image = open_picture(_bytes(filesystem, piece))
            image.load()
            turn_upright(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{self.where}: {key} cannot be read: {one_line(error)}") from error
        return image

    @cached_property
    def digest(self) -> str:
        filesystem, _ = open_url(self.where)
        total = hashlib.sha256()
        pieces = [piece for entry in self.entries.values() for piece in (entry.picture, entry.mask) if piece]
        for path in sorted({piece.path for piece in pieces}):
            with filesystem.open_input_stream(path, compression=None, buffer_size=CHUNK) as stream:
                found = hashlib.sha256()
                while chunk := stream.read(CHUNK):
                    found.update(chunk)
            total.update(f"{PurePosixPath(path).name} {found.hexdigest()}\n".encode())
        return total.hexdigest()


def open_files(where: str, mpp: float | None = None, console: Console | None = None) -> Files:
    """Shards (`*.tar`) or images below `where`, a folder or URL; `UserError` where there is neither.

    On the console a bar shows while the sizes of the images are read.
    """
    url = where if "://" in where else str(Path(where).absolute())
    filesystem, root = open_url(url)
    infos = filesystem.get_file_info(pyarrow.fs.FileSelector(root, recursive=True, allow_not_found=True))
    infos = sorted((info for info in infos if info.is_file), key=lambda info: str(info.path))
    top = {
        PurePosixPath(info.path).name: info
        for info in infos
        if str(PurePosixPath(info.path).parent) == root.rstrip("/")
    }
    if "run.json" in top and "manifest.parquet" not in top:
        raise UserError(f"{where} is not finished: the same diffgen synthesize resumes it")
    tars = [info for name, info in top.items() if name.endswith(".tar")]
    found = [*_shards(where, filesystem, tars)] if tars else [*_images(where, infos, root)]
    if not found:
        raise UserError(f"{where}: no shards (*.tar) and no images there")
    key, times = Counter(key for key, *_ in found).most_common(1)[0]
    if times > 1:
        raise UserError(f"{where}: two samples have the key {key}")
    masked = [masked for _, _, _, masked, _ in found]
    if tars and any(masked) and not all(masked):
        key = next(key for key, _, _, mask, _ in found if mask is None)
        raise UserError(f"{where}: {key} has no label map, others have")
    entries, faults = [], list[UserError]()
    screen = console or Console(quiet=True)
    for key, source, picture, mask, told in progress.each(found, screen, "sizes", "images"):
        try:
            height, width = _size(filesystem, picture, f"{where}: {key}")
        except UserError as error:
            faults.append(error)
            continue
        entries.append(ImageEntry(key, source, picture, mask, height, width))
        mpp = told or mpp
    if faults and (tars or not entries):
        raise faults[0]
    if console is not None:
        _tell(console, where, faults, [key for key, _, _, mask, _ in found if mask is None and any(masked)])
    labels = None
    if "labels.json" in top:
        with filesystem.open_input_stream(top["labels.json"].path) as stream:
            labels = _labels(stream.read(), where)
    made = Files(url, entries, labels, mpp)
    if "run.json" in top:
        with filesystem.open_input_stream(top["run.json"].path) as stream:
            run = _record(stream.read(), f"{where}: run.json")
        made.patch_px, made.given_label_maps = run.get("patch_px"), run.get("masks") is not None
    return made


def _tell(console: Console, where: str, faults: list[UserError], bare: list[str]) -> None:
    """What of a folder is not used, or not all of it."""
    for fault in faults[:SHOWN]:
        console.print(f"[yellow]left out[/]: {fault}")
    if len(faults) > SHOWN:
        console.print(f"[yellow]left out[/]: {len(faults) - SHOWN} more of {where} that cannot be read")
    if bare:
        more = f" and {len(bare) - SHOWN} more" if len(bare) > SHOWN else ""
        names = ", ".join(bare[:SHOWN])
        console.print(f"[yellow]{where}[/]: {len(bare)} without a label map: {names}{more}")


Found = tuple[str, str, ByteRange, ByteRange | None, float | None]
"""Key, source, picture, mask, µm per pixel."""


def _shards(where: str, filesystem: Any, tars: list[Any]) -> Iterator[Found]:
    for info in tars:
        name = PurePosixPath(info.path).name
        samples: dict[str, dict[str, ByteRange]] = {}
        try:
            with filesystem.open_input_file(info.path) as stream:
                if stream.read_at(len(END), max(0, info.size - len(END))) != END:
                    raise UserError(f"{where}: {name} is cut short")
                stream.seek(0)
                for member, place in members(stream).items():
                    stem, _, extension = member.partition(".")
                    samples.setdefault(stem, {})[extension] = ByteRange(info.path, *place)
                records = {
                    key: _record(stream.read_at(parts["json"].size, parts["json"].offset), f"{name}: {key}")
                    for key, parts in samples.items()
                    if "json" in parts
                }
        except tarfile.TarError as error:
            raise UserError(f"{where}: {name} is not a whole tar: {one_line(error)}") from error
        for key, parts in samples.items():
            picture = next((parts[kind] for kind in PICTURES if kind in parts), None)
            if picture is None:
                raise UserError(f"{where}: sample {key} of {name} has no picture")
            record = records.get(key, {})
            parent = record.get("parent", {}).get("index")
            source = record.get("source") or (f"{parent:09d}" if parent is not None else key)
            yield key, str(source), picture, parts.get(MASK), record.get("mpp")


def _images(where: str, infos: list[Any], root: str) -> Iterator[Found]:
    """The pictures of a folder with their label maps, by their names (`companions.pair`)."""
    by_name = {PurePosixPath(info.path).relative_to(root).as_posix(): info for info in infos}
    hidden = {name for name in by_name if any(part.startswith(".") for part in name.split("/"))}
    paired = pair(name for name in by_name if name not in hidden)
    alone = [name for name, reason in paired.passed.items() if reason == WITHOUT_PICTURE]
    if alone and paired.masks:
        raise UserError(f"{where}: {alone[0]} is {WITHOUT_PICTURE}")
    for name in paired.pictures:
        if suffix_of(name).lstrip(".") in PICTURES:
            info, mask = by_name[name], by_name.get(paired.masks.get(name, ""))
            piece = None if mask is None else ByteRange(str(mask.path), 0, mask.size)
            yield name, name, ByteRange(str(info.path), 0, info.size), piece, None


def _bytes(filesystem: Any, piece: ByteRange) -> bytes:
    with filesystem.open_input_file(piece.path) as stream:
        read: bytes = stream.read_at(piece.size, piece.offset)
    return read


def _size(filesystem: Any, piece: ByteRange, name: str) -> tuple[int, int]:
    with filesystem.open_input_file(piece.path) as stream:
        for size in (min(HEAD, piece.size), piece.size):
            try:
                width, height = shown_size(open_picture(stream.read_at(size, piece.offset)))
                return height, width
            except (OSError, SyntaxError, ValueError) as error:
                fault = error
    raise UserError(f"{name} is not a readable picture: {one_line(fault)}")


def _record(data: bytes, name: str) -> dict[str, Any]:
    try:
        record = json.loads(data)
    except ValueError as error:
        raise UserError(f"{name}: its JSON is not readable: {one_line(error)}") from error
    return record if isinstance(record, dict) else {}


def _labels(data: bytes, where: str) -> Labels:
    try:
        return Labels.from_json(json.loads(data))
    except ValueError as error:
        raise UserError(f"{where}: {one_line(error)}") from error


def _covering(length: int, side: int) -> list[int]:
    """Where as few parts of `side` begin as cover a length, evenly; none where it is shorter."""
    if length < side:
        return []
    number = -(-length // side)
    return [round(k * (length - side) / max(1, number - 1)) for k in range(number)]
