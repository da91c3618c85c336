"""Tars of samples and the pictures in them: WebDataset shards that repeat byte for byte, PNG of any size."""

import contextlib
import hashlib
import io
import json
import struct
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from diffgen.errors import one_line
from diffgen.urls import CHUNK

if TYPE_CHECKING:
    from PIL import Image

ORIENTATION = 0x0112
"""Tag of EXIF and TIFF."""


def tar_writer(sink: IO[bytes]) -> Any:
    """A `webdataset.TarWriter` of bytes with nothing of the moment in it; it leaves `sink` open."""
    import webdataset  # late: it takes seconds

    owner = {"user": "diffgen", "group": "diffgen", "mode": 0o644}
    return webdataset.TarWriter(sink, mtime=0, encoder=False, **owner)


def pack(path: Path, members: Iterable[tuple[str, bytes]]) -> tuple[int, str]:
    """(name, content) → a tar with nothing of the moment in it; its size in bytes and its sha256."""
    with path.open("wb") as sink, tar_writer(sink) as tar:
        for name, content in members:
            stem, _, extension = name.partition(".")
            # One by one: the members of a larger sample would be sorted.
            tar.write({"__key__": stem, extension: content})
    with path.open("rb") as built:
        return path.stat().st_size, hashlib.file_digest(built, "sha256").hexdigest()


def samples(stream: IO[bytes]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, content by extension) of the samples of a tar, up to its end or to where it is damaged."""
    key, files = "", dict[str, bytes]()
    with (
        contextlib.suppress(tarfile.TarError, EOFError),
        tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as tar,
    ):
        for member in tar:
            stem, _, extension = member.name.partition(".")
            if files and stem != key:
                yield key, files
                files = {}
            content = tar.extractfile(member)
            key, files[extension] = stem, content.read() if content else b""
    if files:
        yield key, files


class Member(NamedTuple):
    """Where the bytes of a file lie in a tar."""

    offset: int
    size: int


def members(stream: IO[bytes]) -> dict[str, Member]:
    """Name → place of the files of a tar; raises `tarfile.TarError` where it is damaged."""
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        return {info.name: Member(info.offset_data, info.size) for info in tar if info.isfile()}


def open_picture(source: Path | str | bytes | IO[bytes]) -> "Image.Image":
    """`PIL.Image.open` of a picture of any size; raises what that raises.

    PIL refuses pictures of more than 179 megapixels, which is meant for servers that take uploads; a mask of
    a slide, or a synthetic image, may have more.
    """
    from PIL import Image  # late: the command line needs none

    Image.MAX_IMAGE_PIXELS = None
    image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    if image.format == "TIFF" and isinstance(source, str | Path) and image.getexif().get(ORIENTATION, 1) != 1:
        # By its path Pillow maps an uncompressed one into memory, by the sides that it has when it is turned.
        image = Image.open(io.BytesIO(Path(source).read_bytes()))
    return image


def orientation(image: "Image.Image") -> int:
    """How viewers turn an opened picture, as EXIF numbers it; 1: not at all. Decodes nothing."""
    if image.format == "TIFF":  # Pillow turns it by itself, and gives the size that it has then
        return 1
    if image.format == "PNG" and "exif" not in image.info:  # Pillow would decode it to look for more
        return 1
    turned = image.getexif().get(ORIENTATION, 1)
    return turned if turned in range(1, 9) else 1


def shown_size(image: "Image.Image") -> tuple[int, int]:
    """Width and height of a picture as viewers show it. Decodes nothing."""
    width, height = image.size
    return (height, width) if orientation(image) >= 5 else (width, height)


def turn_upright(image: "Image.Image") -> None:
    """Turn a picture as its EXIF orientation says, in place; decodes it where there is something to turn."""
    from PIL import ImageOps

    if orientation(image) != 1:
        ImageOps.exif_transpose(image, in_place=True)


def open_png(data: bytes, decode: bool) -> "Image.Image":
    """A PNG, opened; with `decode`, read to its last pixel and checksum. `ValueError` if it is damaged."""
    try:
        if decode:
            open_picture(data).verify()
        image = open_picture(data)
        if decode:
            image.load()
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error) as error:
        raise ValueError(f"has a damaged PNG ({one_line(error)})") from error
    if image.format != "PNG":
        raise ValueError(f"has a {image.format} where a PNG belongs")
    return image


def canonical_json(tree: Any) -> bytes:
    """Any tree that is JSON, in one form only: what is read back gives the same bytes again."""
    form: dict[str, Any] = {"separators": (",", ":"), "allow_nan": False, "ensure_ascii": False}
    # Twice, because keys may become strings only now, and those sort in another order than numbers.
    return json.dumps(json.loads(json.dumps(tree, **form)), sort_keys=True, **form).encode()
