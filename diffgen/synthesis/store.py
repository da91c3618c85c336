"""Where output goes: a folder, here or behind any URL `pyarrow.fs` or fsspec opens; and its file formats.

Invariants on a local filesystem: a file stands under its name whole or not at all, and once its
writer has returned it survives a power cut. A remote filesystem has no rename: a file is built
here and sent as one stream. Object stores show it whole or not at all, others may show a piece
of it; so no file counts as finished because it is there (`shards` says what does).
A folder belongs to one run. Tars and JSON of the same content have the same bytes.
"""

import contextlib
import hashlib
import io
import json
import struct
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import pyarrow
import pyarrow.fs
import pyarrow.parquet as pq
from PIL.PngImagePlugin import PngImageFile

from diffgen.config import differences
from diffgen.errors import UserError
from diffgen.errors import one_line as one_line  # `shards` takes it from here
from diffgen.files import CHUNK, move, open_url, send, sync, tar_writer

RUN = "run.json"
MADE_ON = "made_on"
"""In `run.json`: kinds of device, with precision and version of torch, that samples here were made on."""
TEMPORARY = ".tmp"
LOCK = ".lock"
HOLDER = ".lock.json"
"""Who holds the lock; behind a URL the lock itself."""


class Store:
    """A folder of files by name, such as `manifest/shard-000000.parquet`; picklable, opened on first use.

    A relative path is made absolute here, so make it where the user is and hand `url` to an actor.
    Every method raises `UserError` where the scheme is unknown, and `OSError` where the store
    does not answer.
    """

    def __init__(self, url: str) -> None:
        self.url = url if "://" in url else str(Path(url).expanduser().absolute())

    def __reduce__(self) -> tuple[type["Store"], tuple[str]]:
        return Store, (self.url,)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        filesystem, root = open_url(self.url)
        return filesystem, root.rstrip("/")

    @property
    def folder(self) -> Path | None:
        """The folder of a local store; `None` for a remote one."""
        filesystem, root = self._opened
        return Path(root or "/") if isinstance(filesystem, pyarrow.fs.LocalFileSystem) else None

    def _path(self, name: str) -> str:
        return f"{self._opened[1]}/{name}".rstrip("/")

    def _infos(self, folder: str) -> list[Any]:
        selector = pyarrow.fs.FileSelector(self._path(folder) or "/", allow_not_found=True)
        return sorted(self._opened[0].get_file_info(selector), key=lambda info: info.base_name)

    def entries(self) -> list[str]:
        """Names of the files and folders in the root, without those of a run at work."""
        passing = {TEMPORARY, LOCK, HOLDER}
        return [info.base_name for info in self._infos("") if info.base_name not in passing]

    def files(self, folder: str, suffix: str) -> dict[str, int]:
        """Sorted names of the files in a folder that end in `suffix`, with their sizes in bytes."""
        return {
            info.base_name: info.size
            for info in self._infos(folder)
            if info.is_file and info.base_name.endswith(suffix)
        }

    def exists(self, name: str) -> bool:
        info = self._opened[0].get_file_info(self._path(name))
        return bool(info.type != pyarrow.fs.FileType.NotFound)

    def open(self, name: str) -> IO[bytes]:
        """A stream to read a file from, front to back; `FileNotFoundError` if there is none."""
        stream: IO[bytes] = self._opened[0].open_input_stream(
            self._path(name), compression=None, buffer_size=CHUNK
        )
        return stream

    def read(self, name: str) -> bytes:
        """Content of a file; `FileNotFoundError` if there is none."""
        with self.open(name) as stream:
            return stream.read()

    def samples(self, name: str) -> Iterator[tuple[str, dict[str, bytes]]]:
        """(key, content by extension) of the samples of a tar, up to its end or to where it is damaged."""
        key, files = "", dict[str, bytes]()
        with (
            self.open(name) as stream,
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

    def holds(self, name: str, num_bytes: int, sha256: str) -> bool:
        """Whether exactly this file stands under `name`."""
        if self._opened[0].get_file_info(self._path(name)).size != num_bytes:
            return False
        found = hashlib.sha256()
        with self.open(name) as stream:
            while chunk := stream.read(CHUNK):
                found.update(chunk)
        return found.hexdigest() == sha256

    def write(self, name: str, data: bytes) -> None:
        """Put `data` in place under `name`, over what was there."""
        with self.scratch() as scratch:
            path = scratch / "data"
            path.write_bytes(data)
            self.upload(path, name)

    def read_table(self, name: str, schema: Any) -> Any:
        """A Parquet file with at least one row; `None` if it is damaged or has other columns.

        The last columns of the schema may be absent, as they came later: they are null then.
        """
        data = pyarrow.BufferReader(self.read(name))
        try:
            table = pq.read_table(data)
        except (pyarrow.ArrowInvalid, OSError):
            return None
        for column in schema:
            if column.name not in table.column_names:
                table = table.append_column(column, pyarrow.nulls(len(table), column.type))
        return table if table.schema.equals(schema) and len(table) else None

    def write_table(self, name: str, table: Any) -> None:
        sink = io.BytesIO()
        pq.write_table(table, sink)
        self.write(name, sink.getvalue())

    def upload(self, path: Path, name: str) -> None:
        """Move a file built in `scratch` into place: a rename in a local store, else one stream."""
        if self.folder is not None:
            move(path, self.folder / name)
            return
        with path.open("rb") as source:
            send(source, self._opened[0], self._path(name))
        path.unlink()

    def delete(self, name: str) -> None:
        """Remove a file; no error if there is none."""
        if self.exists(name):
            self._opened[0].delete_file(self._path(name))
            if self.folder is not None:
                sync((self.folder / name).parent)

    def claim(
        self, run: Mapping[str, Any], made_on: Mapping[str, str] | None = None, mix: bool = False
    ) -> None:
        """Make this the folder of a run, or find that it is; `mix`: on whatever device it began.

        Raises `UserError` if it holds other things, or says how another run, or its device, differs.
        """
        entries = self.entries()
        if RUN not in entries:
            if entries:
                raise UserError(f"{self.url} is not empty and was not made by diffgen synthesize")
            self._write_run({**run, MADE_ON: [dict(made_on)]} if made_on else run)
            return
        try:
            old = json.loads(self.read(RUN))
        except ValueError as error:
            raise UserError(f"{self.url}: {RUN} is not readable ({one_line(error)})") from error
        known = old.pop(MADE_ON, [])  # none: it is from before this was written down
        _same(self.url, of_any_device(old), of_any_device(run))
        if made_on and known and made_on not in known:
            if not mix:
                changed = "; ".join(differences(known[0], made_on))
                raise UserError(
                    f"{self.url} was made on another device: {changed}; choose another --out, or "
                    "--mix-devices to go on all the same, with other rounding"
                )
            self._write_run({**old, MADE_ON: [*known, dict(made_on)]})
        elif not mix and known[:1] in ([], [made_on]):
            _same(self.url, old, run)

    def _write_run(self, run: Mapping[str, Any]) -> None:
        self.write(RUN, (json.dumps(run, indent=2, sort_keys=True) + "\n").encode())

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A local temporary folder to build files in; in a local store on its own filesystem."""
        temporary = None if self.folder is None else self.folder / TEMPORARY
        try:
            with _temporary(temporary) as scratch:
                yield Path(scratch)
        finally:
            if temporary is not None:
                with contextlib.suppress(OSError):  # not empty: someone else is at work
                    temporary.rmdir()

    def clean(self) -> None:
        """Remove what a killed writer left in the temporary folder; nothing outside it is touched."""
        if self.folder is None:
            return
        temporary = self.folder / TEMPORARY
        # Backwards, so that what lies in a folder goes before the folder.
        for path in sorted(temporary.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            temporary.rmdir()


def of_any_device(run: Any) -> Any:
    """What shapes the samples, without the settings that a device settles."""
    if not isinstance(run, dict) or not isinstance(run.get("sampling"), dict):
        return run
    sampling = {
        key: value for key, value in run["sampling"].items() if key not in {"precision", "micro_batch"}
    }
    return run | {"sampling": sampling}


def _same(url: str, old: Any, run: Any) -> None:
    if old != run:
        found = differences(old, run) or ["a key without a value"]
        shown = "; ".join([*found[:3], f"… and {len(found) - 3} more"][: len(found)])
        raise UserError(f"{url} was made with other settings: {shown}; choose another --out")


def _temporary(parent: Path | None) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder; another process may remove an empty `parent` just when it is made."""
    while True:
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            return tempfile.TemporaryDirectory(dir=parent)


def pack(path: Path, members: Iterable[tuple[str, bytes]]) -> tuple[int, str]:
    """(name, content) → a tar with nothing of the moment in it; its size in bytes and its sha256."""
    with path.open("wb") as sink, tar_writer(sink) as tar:
        for name, content in members:
            stem, _, extension = name.partition(".")
            # One by one: the members of a larger sample would be sorted.
            tar.write({"__key__": stem, extension: content})
    with path.open("rb") as built:
        return path.stat().st_size, hashlib.file_digest(built, "sha256").hexdigest()


def canonical_json(tree: Any) -> bytes:
    """Any tree that is JSON, in one form only: what is read back gives the same bytes again."""
    form: dict[str, Any] = {"separators": (",", ":"), "allow_nan": False, "ensure_ascii": False}
    # Twice, because keys may become strings only now, and those sort in another order than numbers.
    return json.dumps(json.loads(json.dumps(tree, **form)), sort_keys=True, **form).encode()


def open_png(data: bytes, decode: bool) -> PngImageFile:
    """A PNG, opened; with `decode`, read to its last pixel and checksum. `ValueError` if it is damaged."""
    try:
        if decode:
            PngImageFile(io.BytesIO(data)).verify()
        # Not Image.open: that refuses images as large as these may be.
        image = PngImageFile(io.BytesIO(data))
        if decode:
            image.load()
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error) as error:
        raise ValueError(f"has a damaged PNG ({one_line(error)})") from error
    return image


def warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
