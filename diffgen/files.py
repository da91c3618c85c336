"""Files on a local disk that stand whole or not at all, URLs, pictures of any size, and tars that repeat
byte for byte.

Invariants: a name holds the old file or the new one, never a piece, whoever dies when; and once a
function here has returned, the new one survives a power cut.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from diffgen.errors import UserError, one_line

if TYPE_CHECKING:
    from PIL import Image

PARTIAL = ".partial"
"""Ending of the name under which `atomic` builds a file; a killed process leaves it behind."""

CHUNK = 1 << 23  # bytes a read or write of a stream: object stores answer slowly, then fast
# Folders do not exist there; to make one would leave an empty object.
WITHOUT_FOLDERS = frozenset({"s3", "gcs", "abfs"})


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which comes to `path` when the block ends well, and is gone otherwise."""
    built = path.with_name(path.name + PARTIAL)
    try:
        with built.open("wb") as file:
            yield file
        move(built, path)
    except BaseException:
        built.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    with atomic(path) as file:
        file.write(text.encode())


def move(built: Path, path: Path) -> None:
    """Put a finished file in its place, over what was there; both lie on one filesystem."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sync(built)
    built.replace(path)
    sync(path.parent)
    sync(path.parent.parent)  # the folder itself may be new


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        # Some filesystems do not let a folder be synced; there a rename is as durable as it gets.
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def open_url(url: str) -> tuple[Any, str]:
    """(pyarrow filesystem, path in it) of an absolute path or any URL that `pyarrow.fs` or fsspec opens.

    `s3://` goes to the server that `AWS_ENDPOINT_URL` names, if the URL names none (`?endpoint_override=`);
    what else S3 needs comes from the URL or the environment too. Raises `UserError` if it cannot be opened.
    """
    import pyarrow.fs

    if "://" not in url:
        return pyarrow.fs.LocalFileSystem(), url
    try:
        try:
            filesystem, path = pyarrow.fs.FileSystem.from_uri(_with_endpoint(url))
            if not path:
                raise ValueError("it names no bucket")
            return filesystem, str(path)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
            # Only what pyarrow does not know, or was built without, is left to fsspec.
            if "filesystem type" not in str(error) and "without" not in str(error):
                raise
        from fsspec.core import url_to_fs

        filesystem, path = url_to_fs(url)
        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem)), str(path)
    except (pyarrow.ArrowException, ValueError, ImportError, OSError) as error:
        raise UserError(f"{url}: cannot be opened ({one_line(error)})") from error


def _with_endpoint(url: str) -> str:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint or not url.startswith("s3://") or "endpoint_override=" in url:
        return url
    scheme, _, server = endpoint.rpartition("://")
    query = urlencode({"endpoint_override": server.rstrip("/"), "scheme": scheme or "https"})
    return f"{url}{'&' if urlsplit(url).query else '?'}{query}"


def open_picture(source: Path | str | IO[bytes]) -> "Image.Image":
    """`PIL.Image.open` of a picture of any size; raises what that raises.

    PIL refuses pictures of more than 179 megapixels, which is meant for servers that take uploads; a mask of
    a slide, or a synthetic image, may have more.
    """
    from PIL import Image  # late: the command line needs none

    Image.MAX_IMAGE_PIXELS = None
    return Image.open(source)


def send(source: IO[bytes], filesystem: Any, path: str) -> None:
    """Write what `source` holds to a file of a pyarrow filesystem, as one stream, over what was there."""
    if filesystem.type_name not in WITHOUT_FOLDERS:
        filesystem.create_dir(path.rpartition("/")[0], recursive=True)
    with filesystem.open_output_stream(path, compression=None) as sink:
        shutil.copyfileobj(source, sink, CHUNK)


def tar_writer(sink: IO[bytes]) -> Any:
    """A `webdataset.TarWriter` of bytes with nothing of the moment in it; it leaves `sink` open."""
    import webdataset  # late: it takes seconds

    owner = {"user": "diffgen", "group": "diffgen", "mode": 0o644}
    return webdataset.TarWriter(sink, mtime=0, encoder=False, **owner)
