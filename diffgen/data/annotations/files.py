"""Annotation files → shapes: what a file is, is said by its content."""

import gzip
import json
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from diffgen.data.annotations.coco import Coco, is_coco, of_coco
from diffgen.data.annotations.geojson import is_geojson, of_geojson
from diffgen.data.annotations.shapes import Annotations
from diffgen.data.annotations.xml import of_xml
from diffgen.data.formats.base import LeftOut
from diffgen.errors import one_line

GZIP = b"\x1f\x8b"


class NoAnnotationsError(LeftOut):
    """A JSON or XML file of something else."""


def load(path: str, image: str) -> Annotations:
    """The shapes that are drawn on an image, by its name where the file is of many.

    Raises `LeftOut`, which names the file; `NoAnnotationsError` where it holds something else.
    """
    try:
        return _load(path, Path(path).stat().st_mtime_ns, image)
    except OSError as error:
        raise LeftOut(f"its outlines cannot be read ({one_line(error)})") from error


def of_many(path: str) -> bool:
    """Whether a file is of many images, as COCO's are. Raises what `load` does."""
    try:
        return isinstance(_parsed(path, Path(path).stat().st_mtime_ns), Coco)
    except OSError as error:
        raise LeftOut(f"its outlines cannot be read ({one_line(error)})") from error


@lru_cache(maxsize=2)
def _load(path: str, mtime: int, image: str) -> Annotations:
    """The same object for every region of an image, which knows where its shapes are."""
    found = _parsed(path, mtime)
    return found.of(image) if isinstance(found, Coco) else found


@lru_cache(maxsize=1)
def _parsed(path: str, _mtime: int) -> Annotations | Coco:
    name, data = Path(path).name, Path(path).read_bytes()
    if data.startswith(GZIP):
        try:
            data = gzip.decompress(data)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise LeftOut(f"{name}: not a whole gzip file") from error
    if data[:100].decode(json.detect_encoding(data), errors="ignore").lstrip("\ufeff \t\r\n").startswith("<"):
        return _of_xml(data, name)
    tree = _json(data, name)
    if is_geojson(tree):
        return of_geojson(tree, name)
    if is_coco(tree):
        return of_coco(tree, name)
    if isinstance(tree, list) and not tree:
        return Annotations()
    raise NoAnnotationsError(f"{name}: no GeoJSON, and no COCO")


def _json(data: bytes, name: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise LeftOut(f"{name}: not readable JSON ({one_line(error)})") from error


def _of_xml(data: bytes, name: str) -> Annotations:
    try:
        found = of_xml(ElementTree.fromstring(data), name)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise LeftOut(f"{name}: not readable XML ({one_line(error)})") from error
    if found is None:
        raise NoAnnotationsError(f"{name}: no annotations of ASAP, ImageScope or HALO")
    return found
