"""Copies of what lies behind URLs: one a node, under the digest of what it is.

Invariants: a copy stands whole or not at all; processes of a node that want the same one wait for the first,
so each file is fetched once a node; a copy is never changed, as its name says what is in it. A process that
was given a copy uses it until it ends; those that nobody uses go where they take too much, the oldest first.
"""

import contextlib
import errno
import fcntl
import math
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from diffgen.errors import UserError
from diffgen.storage import PARTIAL, Folder
from diffgen.urls import CHUNK

PLACE = "DIFFGEN_CACHE"
"""Environment variable: the folder of all copies, by default `~/.cache/diffgen`."""
SIZE = "DIFFGEN_CACHE_GB"
"""Environment variable: what all copies may take; by default as much as leaves `FREE` of their disk."""
FREE = 0.1
_in_use: dict[Path, int] = {}
"""Copies that this process was given: open folders, each with a share of its lock."""


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
    if _use(place):
        return place
    tidy()
    with _on_disk(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{place}.lock"):
            if _use(place):  # another process has been quicker
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
                _use(place)
            except BaseException:
                shutil.rmtree(built, ignore_errors=True)
                raise
    with contextlib.suppress(OSError):
        Path(f"{place}.lock").unlink()  # whoever waits for it looks for the copy first
    tidy()
    return place


def copies() -> dict[Path, int]:
    """All copies with their bytes, the least recently used first."""
    with contextlib.suppress(FileNotFoundError):
        found = [place for place in root().iterdir() if place.is_dir() and place.suffix != PARTIAL]
        found.sort(key=lambda place: place.stat().st_mtime)
        return {place: sum(file.stat().st_size for file in place.rglob("*")) for place in found}
    return {}


def tidy() -> None:
    """Remove copies that no process of this node uses, until they take no more than they may.

    Raises `UserError` where `DIFFGEN_CACHE_GB` is no number.
    """
    limit = _limit()
    sizes = copies()
    for place in sizes:
        free = shutil.disk_usage(place.parent)
        if sum(sizes.values()) <= limit and free.free >= (0 if limit < math.inf else FREE * free.total):
            return
        if _remove(place):
            sizes = sizes | {place: 0}


def _limit() -> float:
    """Bytes."""
    said = os.environ.get(SIZE)
    try:
        return float(said) * 1e9 if said else math.inf
    except ValueError as error:
        raise UserError(f"{SIZE}={said}: expected a number of gigabytes") from error


def _use(place: Path) -> bool:
    """Whether the copy is there; then this process has it in use from now on."""
    try:
        opened = os.open(place, os.O_RDONLY)
    except FileNotFoundError:
        return False
    _lock(opened, fcntl.LOCK_SH)
    if not _is(opened, place):  # removed, while we waited
        os.close(opened)
        return False
    os.utime(place)
    if (before := _in_use.pop(place, None)) is not None:
        os.close(before)
    _in_use[place] = opened
    return True


def _remove(place: Path) -> bool:
    """Remove a copy, unless it is in use or another process is at it."""
    gone = place.with_name(place.name + PARTIAL)
    with contextlib.suppress(FileNotFoundError, Timeout), FileLock(f"{place}.lock", timeout=0):
        opened = os.open(place, os.O_RDONLY)
        if unused := _lock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB):
            place.rename(gone)  # whole or not at all
            shutil.rmtree(gone, ignore_errors=True)
        os.close(opened)
        Path(f"{place}.lock").unlink(missing_ok=True)
        return unused
    return False


def _lock(opened: int, how: int) -> bool:
    try:
        fcntl.flock(opened, how)
    except OSError:  # it is in use, or the filesystem has no locks: then nothing is ever removed
        return False
    return True


def _is(opened: int, place: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(opened), place.stat())
    return False


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
