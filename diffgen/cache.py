"""Copies of what lies behind URLs: one a node, under the digest of what it is.

Invariants: a copy stands whole or not at all; processes of a node that want the same one wait for the first,
so each file is fetched once a node; a copy is never changed, as its name says what is in it.
"""

import contextlib
import errno
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from filelock import FileLock

from diffgen.errors import UserError
from diffgen.storage import PARTIAL, Folder
from diffgen.urls import CHUNK

PLACE = "DIFFGEN_CACHE"
"""Environment variable: the folder of all copies, by default `~/.cache/diffgen`."""


def root() -> Path:
    """The folder of all copies."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get(PLACE) or f"{home}/diffgen").expanduser().absolute()


def copy(
    folder: Folder,
    key: str,
    known: Mapping[str, bytes],
    names: Iterable[str],
    done: Callable[[int], object] = lambda _: None,
) -> Path:
    """A local folder with files of `folder`: those that are `known` already, and those of these `names`.

    `key` is a digest of them all; `done` is told of bytes as they come. Raises `UserError` where the disk is
    full, `OSError` where the store does not answer.
    """
    place = root() / key
    if place.exists():
        return place
    with _on_disk(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{place}.lock"):
            if place.exists():  # another process has been quicker
                return place
            built = place.with_name(place.name + PARTIAL)
            shutil.rmtree(built, ignore_errors=True)  # of a process that was killed
            built.mkdir()
            try:
                for name, data in known.items():
                    (built / name).write_bytes(data)
                for name in names:
                    (built / name).parent.mkdir(parents=True, exist_ok=True)
                    with folder.open(name) as source, (built / name).open("wb") as sink:
                        while chunk := source.read(CHUNK):
                            sink.write(chunk)
                            done(len(chunk))
                built.rename(place)
            except BaseException:
                shutil.rmtree(built, ignore_errors=True)
                raise
    with contextlib.suppress(OSError):
        Path(f"{place}.lock").unlink()  # whoever waits for it looks for the copy first
    return place


@contextlib.contextmanager
def _on_disk(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise UserError(
                f"{socket.gethostname()}: no space left on device for a copy of the data in {place.parent}: "
                f"make room there, or set {PLACE} to a larger disk"
            ) from error
        raise
