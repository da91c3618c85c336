"""Prepared data behind a URL: read through a copy that each node fetches once, written at the end of all.

The identity of prepared data is that of its index and of what stands beside it: shards are only added.
"""

import hashlib
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

from diffgen import cache
from diffgen.data.shards import COMPLETE, COMPLETED, MARK
from diffgen.errors import UserError
from diffgen.lock import held
from diffgen.storage import Folder
from diffgen.urls import is_url

INDEX = "patches.parquet"
NEEDED = (COMPLETE, INDEX, "labels.json", "settings.yaml")
"""What is always there, and small; the shards are named in it."""
NO_DATA = "{0} holds no prepared data (diffgen prepare SOURCE… --out {0})"


def place_of(data: str | Path) -> str:
    """Prepared data by a name that is the same in any working folder."""
    return Folder(str(data)).url


def local(data: str | Path) -> Path:
    """The folder of prepared data on this machine: itself or, behind a URL, its copy, fetched if need be.

    Raises `UserError` where there is none, or the disk is full.
    """
    if not is_url(data):
        return Path(data)
    folder = Folder(str(data))
    try:
        known = {name: folder.read(name) for name in NEEDED}
    except FileNotFoundError as error:
        raise UserError(NO_DATA.format(data)) from error
    digest = hashlib.sha256()
    for name, content in known.items():
        digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    shards = sorted(set(pq.read_table(io.BytesIO(known[INDEX]), columns=["shard"])["shard"].to_pylist()))
    return cache.copy(folder, f"data-{digest.hexdigest()[:24]}", known, shards)


@contextmanager
def output(out: str) -> Iterator[Path]:
    """A local folder to prepare data in, which goes to `out` when that is done: itself, if it is local.

    Behind a URL: one with what is there already, so that sources can be added. What is complete there stays
    so all the while: new shards go first, what names them last. A run that is stopped begins anew.
    """
    if not is_url(out):
        yield Path(out)
        return
    folder = Folder(out)
    scratched = tempfile.TemporaryDirectory(prefix="diffgen-prepare-")
    with folder.answering(), held(folder, "--out"), scratched as scratch:
        work = Path(scratch) / "data"
        there = {name: size for name, size in folder.files("").items() if not name.startswith(".")}
        if COMPLETE in there:
            work.mkdir()
            for name in there:
                (work / name).write_bytes(folder.read(name))
        elif MARK not in there and folder.entries():
            raise UserError(f"{out} is not empty and was not made by diffgen prepare; choose another --out")
        yield work
        if not (work / COMPLETE).exists():  # a dry run
            return
        names = sorted(path.name for path in work.iterdir() if path.is_file())
        shards = [name for name in names if name not in COMPLETED | {COMPLETE, MARK}]
        for name in (MARK, *shards, *sorted(COMPLETED & set(names)), COMPLETE):
            if name not in shards or name not in there:
                folder.upload(work / name, name)
