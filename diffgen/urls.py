"""Filesystems behind URLs, as pyarrow or fsspec open them."""

import os
import shutil
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

from diffgen.errors import UserError, one_line

CHUNK = 1 << 23  # bytes a read or write of a stream: object stores answer slowly, then fast
# Folders do not exist there; to make one would leave an empty object.
WITHOUT_FOLDERS = frozenset({"s3", "gcs", "abfs"})


def is_url(place: object) -> bool:
    return "://" in str(place)


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
            filesystem, path = pyarrow.fs.FileSystem.from_uri(_with_options(url))
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


def _with_options(url: str) -> str:
    """Of S3: the server that the environment names, and small files in one request instead of three."""
    if not url.startswith("s3://"):
        return url
    more: dict[str, str] = {} if "allow_delayed_open=" in url else {"allow_delayed_open": "true"}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and "endpoint_override=" not in url:
        scheme, _, server = endpoint.rpartition("://")
        more |= {"endpoint_override": server.rstrip("/"), "scheme": scheme or "https"}
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(more)}" if more else url


def send(source: IO[bytes], filesystem: Any, path: str) -> None:
    """Write what `source` holds to a file of a pyarrow filesystem, as one stream, over what was there."""
    if filesystem.type_name not in WITHOUT_FOLDERS:
        filesystem.create_dir(path.rpartition("/")[0], recursive=True)
    with filesystem.open_output_stream(path, compression=None) as sink:
        shutil.copyfileobj(source, sink, CHUNK)
