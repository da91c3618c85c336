"""Files on a local disk that stand whole or not at all, and tars that repeat byte for byte.

Kept true: a name holds the old file or the new one, never a piece, whoever dies when; and once a
function here has returned, the new one survives a power cut.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

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


def tar_writer(sink: IO[bytes]) -> Any:
    """A `webdataset.TarWriter` of bytes with nothing of the moment in it; it leaves `sink` open."""
    import webdataset  # late: it takes seconds

    owner = {"user": "diffgen", "group": "diffgen", "mode": 0o644}
    return webdataset.TarWriter(sink, mtime=0, encoder=False, **owner)
