"""Folders of files, here or behind any URL that `pyarrow.fs` or fsspec opens: `runs/lung`, `s3://bucket/lung`.

Invariants. On a local filesystem a name holds the old file, or folder, or the new one, never a piece, whoever
dies when; and once a function here has returned, the new one survives a power cut. A remote filesystem has no
rename: a file is built here and sent as one stream, a folder file by file, its index last and an older index
gone first. So a remote folder that has its index is whole. Object stores show a file whole or not at all,
others may show a piece, so no other file counts as finished because it is there.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from diffgen.errors import UserError, one_line
from diffgen.urls import CHUNK, open_url, send

PARTIAL = ".partial"
"""Ending of the name under which `atomic` builds a file; a killed process leaves it behind."""


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


INDEX = "index.json"
"""Ending of the names of files that say what a folder holds, such as `model_index.json`."""
TEMPORARY = ".tmp"


class Folder:
    """Files by name in a folder, such as `manifest/shard-000000.parquet`; picklable, opened on first use.

    A relative path is made absolute here, so make it where the user is and hand it to workers. Every method
    raises `UserError` where the URL cannot be opened, and `OSError` where the store does not answer.
    """

    def __init__(self, url: str) -> None:
        scheme, remote, place = url.partition("://")
        self.url = f"{scheme}://{place.rstrip('/')}" if remote else str(Path(url).expanduser().absolute())

    def __reduce__(self) -> tuple[type["Folder"], tuple[str]]:
        return Folder, (self.url,)

    def __str__(self) -> str:
        return self.url

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        filesystem, root = open_url(self.url)
        return filesystem, root.rstrip("/")

    @property
    def local(self) -> Path | None:
        """The folder's path, if it is local; else `None`."""
        filesystem, root = self._opened
        return Path(root or "/") if filesystem.type_name == "local" else None

    def storage(self) -> tuple[Any, str]:
        """(filesystem, path) as Ray Train's `RunConfig(storage_filesystem=, storage_path=)` wants them."""
        return self._opened

    def _path(self, name: str) -> str:
        return f"{self._opened[1]}/{name}".rstrip("/")

    def _infos(self, folder: str, recursive: bool = False) -> list[Any]:
        from pyarrow.fs import FileSelector

        selector = FileSelector(self._path(folder) or "/", allow_not_found=True, recursive=recursive)
        return sorted(self._opened[0].get_file_info(selector), key=lambda info: info.path)

    def entries(self) -> list[str]:
        """Sorted names of the files and folders in the folder, without those that begin with a dot."""
        return [info.base_name for info in self._infos("") if not info.base_name.startswith(".")]

    def files(self, folder: str, suffix: str = "") -> dict[str, int]:
        """Sorted names of the files in a folder of it that end in `suffix`, with their sizes in bytes."""
        infos = self._infos(folder)
        return {i.base_name: i.size for i in infos if i.is_file and i.base_name.endswith(suffix)}

    def times(self, folder: str, suffix: str = "") -> dict[str, float]:
        """The same names with the times they were written, s since 1970 by the store's clock, if it says."""
        infos = (info for info in self._infos(folder) if info.is_file and info.mtime_ns is not None)
        return {i.base_name: i.mtime_ns / 1e9 for i in infos if i.base_name.endswith(suffix)}

    def exists(self, name: str) -> bool:
        """Whether there is a file or a folder of that name."""
        return bool(self._opened[0].get_file_info(self._path(name)).type.value)

    def is_file(self, name: str) -> bool:
        """Whether there is a file of that name; "" is the folder itself, which may be one."""
        return bool(self._opened[0].get_file_info(self._path(name)).is_file)

    def size(self, name: str) -> int | None:
        """Bytes of the file of that name, asked for by its name, not by a list; `None` if there is none."""
        size: int | None = self._opened[0].get_file_info(self._path(name)).size
        return size

    def open(self, name: str) -> IO[bytes]:
        """A stream to read a file from, front to back; `FileNotFoundError` if there is none."""
        path = self._path(name)
        stream: IO[bytes] = self._opened[0].open_input_stream(path, compression=None, buffer_size=CHUNK)
        return stream

    def open_at(self, name: str) -> Any:
        """A file to read from anywhere in it (`seek`, `read_at`); `FileNotFoundError` if there is none."""
        return self._opened[0].open_input_file(self._path(name))

    def read(self, name: str) -> bytes:
        """Content of a file; `FileNotFoundError` if there is none."""
        with self.open(name) as stream:
            return stream.read()

    def read_text(self, name: str) -> str | None:
        """Content of a file, UTF-8; `None` if there is none."""
        try:
            return self.read(name).decode()
        except FileNotFoundError:
            return None

    def holds(self, name: str, num_bytes: int, sha256: str) -> bool:
        """Whether exactly this file stands under `name`."""
        if self.size(name) != num_bytes:
            return False
        found = hashlib.sha256()
        with self.open(name) as stream:
            while chunk := stream.read(CHUNK):
                found.update(chunk)
        return found.hexdigest() == sha256

    def write(self, name: str, data: bytes) -> None:
        """Put `data` in place under `name`, over what was there."""
        with self.scratch() as scratch:
            (scratch / "data").write_bytes(data)
            self.upload(scratch / "data", name)

    def write_text(self, name: str, text: str) -> None:
        """The same of a text, in UTF-8."""
        self.write(name, text.encode())

    def upload(self, path: Path, name: str) -> None:
        """Move a file built in `scratch` into place: a rename in a local folder, else one stream."""
        if self.local is not None:
            move(path, self.local / name)
            return
        with path.open("rb") as source:
            send(source, self._opened[0], self._path(name))
        path.unlink()

    def delete(self, name: str) -> None:
        """Remove a file; no error if there is none."""
        if self.exists(name):
            self._opened[0].delete_file(self._path(name))
            if self.local is not None:
                sync((self.local / name).parent)

    def pull(self, name: str, into: Path) -> Path:
        """A local folder with the files of the folder `name`: `into`, or of a local one the folder itself.

        Where there is no such folder, `into` gets nothing, or the path returned is not there.
        """
        if self.local is not None:
            return self.local / name
        for relative in self.tree(name):
            target = into / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            with self.open(f"{name}/{relative}") as stream, target.open("wb") as sink:
                shutil.copyfileobj(stream, sink, CHUNK)
        return into

    def push(self, source: Path, name: str) -> None:
        """Put a copy of a local folder in place as `name`, over what was there.

        A local one then holds that folder and nothing else; a remote one keeps files of other names, so that
        curves and samples of earlier starts stay. Where `source` is that place, nothing happens.
        """
        if self.local is not None:
            _replace(source.absolute(), self.local / name)
            return
        for relative in self.tree(name):
            if relative.endswith(INDEX):
                self._opened[0].delete_file(self._path(f"{name}/{relative}"))
        paths = [path.relative_to(source) for path in sorted(source.rglob("*")) if path.is_file()]
        # Indexes last, and of those the topmost very last.
        for path in sorted(paths, key=lambda path: (path.name.endswith(INDEX), -len(path.parts))):
            with (source / path).open("rb") as stream:
                send(stream, self._opened[0], self._path(f"{name}/{path.as_posix()}"))

    def remove(self, name: str) -> None:
        """Delete a folder, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._opened[0].delete_dir(self._path(name))

    def infos(self, recursive: bool, name: str = "") -> dict[str, Any]:
        """Path from there → pyarrow's `FileInfo` (size, time) of each file of a folder of it, and below."""
        root, infos = self._path(name), self._infos(name, recursive)
        return {info.path.removeprefix(root).lstrip("/"): info for info in infos if info.is_file}

    def tree(self, name: str) -> list[str]:
        """Paths of the files below the folder `name`, from there."""
        return list(self.infos(recursive=True, name=name))

    @contextmanager
    def answering(self) -> Iterator[None]:
        """A store that does not answer within is a `UserError`."""
        try:
            yield
        except OSError as error:
            raise UserError(f"{self}: cannot be read or written ({one_line(error)})") from error

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A local temporary folder to build files in; in a local folder on its own filesystem."""
        temporary = None if self.local is None else self.local / TEMPORARY
        try:
            with _temporary(temporary) as scratch:
                yield Path(scratch)
        finally:
            if temporary is not None:
                with contextlib.suppress(OSError):  # not empty: someone else is at work
                    temporary.rmdir()

    def clean(self) -> None:
        """Remove what a killed writer left in the temporary folder; nothing outside it is touched."""
        if self.local is not None:
            shutil.rmtree(self.local / TEMPORARY, ignore_errors=True)


def fetched(bundle: str, into: Path) -> Path:
    """The folder of a bundle at any URL: itself, or a copy at `into`; `UserError` where there is none."""
    if "://" not in bundle:
        return Path(bundle)
    parent, _, name = bundle.rstrip("/").rpartition("/")
    copy = Folder(parent).pull(name, into)
    if not any(copy.glob(f"*{INDEX}")):  # said here, where the URL is known
        raise UserError(f"{bundle} is not a bundle: no readable model_index.json")
    return copy


def _temporary(parent: Path | None) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder; another process may remove an empty `parent` just when it is made."""
    while True:
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            return tempfile.TemporaryDirectory(dir=parent)


def _replace(source: Path, target: Path) -> None:
    """Copy a folder beside `target` and rename it there; what a killed call left is removed by the next."""
    if target.exists() and source.samefile(target):
        return
    built, old = (target.with_name(f".{target.name}{ending}") for ending in (PARTIAL, ".old"))
    for left in (built, old):
        shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(source, built)
    for path in (*built.rglob("*"), built):
        sync(path)
    with contextlib.suppress(FileNotFoundError):
        target.rename(old)  # a folder with files in it cannot be renamed over
    built.rename(target)
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)
