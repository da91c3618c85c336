"""The folder of a run, here or behind any URL that `pyarrow.fs` or fsspec opens: `runs/lung`, `s3://bucket/lung`.

Invariants: locally, a file or a folder that was written here stands whole or not at all under its name. A
remote filesystem has no rename: a folder is sent file by file, its index last and an older one gone first.
So a remote folder that has its index is whole.
"""

import contextlib
import io
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

from diffgen import files
from diffgen.errors import UserError

INDEX = "index.json"
"""Ending of the names of files that say what a folder holds, such as `model_index.json`."""


class RunFolder:
    """A folder of a run by the names in it, such as `run.yaml` or `bundle`; picklable, opened on first use.

    A relative path is made absolute here, so make it in the driver and hand it to workers. Every method
    raises `UserError` where the URL cannot be opened, and `OSError` where the store does not answer.
    """

    def __init__(self, url: str) -> None:
        scheme, remote, place = url.partition("://")
        self.url = f"{scheme}://{place.rstrip('/')}" if remote else str(Path(url).expanduser().absolute())

    def __reduce__(self) -> tuple[type["RunFolder"], tuple[str]]:
        return RunFolder, (self.url,)

    def __str__(self) -> str:
        return self.url

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        filesystem, root = files.open_url(self.url)
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
        return f"{self._opened[1]}/{name}"

    def exists(self, name: str) -> bool:
        """Whether there is a file or a folder of that name."""
        return bool(self._opened[0].get_file_info(self._path(name)).type.value)

    def read_text(self, name: str) -> str | None:
        """Content of a file, UTF-8; `None` if there is none."""
        try:
            with self._opened[0].open_input_stream(self._path(name), compression=None) as stream:
                return str(stream.read(), "utf-8")
        except FileNotFoundError:
            return None

    def write_text(self, name: str, text: str) -> None:
        """Put a file in place, over what was there."""
        if self.local is None:
            files.send(io.BytesIO(text.encode()), *self._target(name))
        else:
            (self.local / name).parent.mkdir(parents=True, exist_ok=True)
            files.write_text(self.local / name, text)

    def pull(self, name: str, into: Path) -> Path:
        """A local folder with the files of the folder `name`: `into`, or in a local run the folder itself.

        Where the run has no such folder, `into` gets nothing, or the path returned is not there.
        """
        if self.local is not None:
            return self.local / name
        filesystem = self._opened[0]
        for relative, path in self.files(name).items():
            target = into / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            with (
                filesystem.open_input_stream(path, compression=None) as stream,
                target.open("wb") as sink,
            ):
                shutil.copyfileobj(stream, sink, files.CHUNK)
        return into

    def push(self, source: Path, name: str) -> None:
        """Put a copy of a local folder in place as `name`, over what was there.

        A local run then holds that folder and nothing else; a remote one keeps files of other names, so
        that curves and samples of earlier starts stay. Where `source` is that place, nothing happens.
        """
        if self.local is not None:
            _replace(source.absolute(), self.local / name)
            return
        for relative, path in self.files(name).items():
            if relative.endswith(INDEX):
                self._opened[0].delete_file(path)
        for relative in _ordered(source):
            with (source / relative).open("rb") as stream:
                files.send(stream, *self._target(f"{name}/{relative}"))

    def remove(self, name: str) -> None:
        """Delete a folder, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._opened[0].delete_dir(self._path(name))

    def _target(self, name: str) -> tuple[Any, str]:
        return self._opened[0], self._path(name)

    def files(self, name: str) -> dict[str, str]:
        """Files below the folder `name`: path from there → path in the filesystem."""
        import pyarrow.fs

        root = self._path(name)
        selector = pyarrow.fs.FileSelector(root, allow_not_found=True, recursive=True)
        found = [info.path for info in self._opened[0].get_file_info(selector) if info.is_file]
        return {path.removeprefix(root).lstrip("/"): path for path in found}


def fetched(bundle: str, into: Path) -> Path:
    """The folder of a bundle at any URL: itself, or a copy at `into`; `UserError` where there is none."""
    if "://" not in bundle:
        return Path(bundle)
    parent, _, name = bundle.rstrip("/").rpartition("/")
    copy = RunFolder(parent).pull(name, into)
    if not any(copy.glob(f"*{INDEX}")):  # told here, where the URL is known
        raise UserError(f"{bundle} is not a bundle: no readable model_index.json")
    return copy


def _ordered(folder: Path) -> list[str]:
    """Paths of a folder's files from there: indexes last, and of those the topmost last."""
    found = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    found.sort(key=lambda path: (path.name.endswith(INDEX), -len(path.parts)))
    return [path.as_posix() for path in found]


def _replace(source: Path, target: Path) -> None:
    """Copy a folder beside `target` and rename it there; what a killed call left is removed by the next."""
    if target.exists() and source.samefile(target):
        return
    built, old = (target.with_name(f".{target.name}{ending}") for ending in (files.PARTIAL, ".old"))
    for left in (built, old):
        shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(source, built)
    for path in (*built.rglob("*"), built):
        files.sync(path)
    with contextlib.suppress(FileNotFoundError):
        target.rename(old)  # a folder with files in it cannot be renamed over
    built.rename(target)
    files.sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)
