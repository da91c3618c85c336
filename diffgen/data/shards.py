"""Writing of prepared data: WebDataset shards and the index of their patches.

A file is at its final path only when it is complete. The same samples in the same order give the same
bytes: fixed mtime, owner and order of members.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
import webdataset

from diffgen.data.cut import Sample

PATTERNS = ("image-*.tar", "mask-*.tar", "*.partial")
SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("split", pa.string()),
        ("shard", pa.string()),
        ("key", pa.string()),
        ("source", pa.string()),
        ("x", pa.int64()),
        ("y", pa.int64()),
        ("labelled", pa.bool_()),
        ("context", pa.int64()),
        ("shares", pa.list_(pa.float64())),
    ]
)


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which comes to `path` when the block ends well and not otherwise."""
    with _partial(path).open("wb") as file:
        yield file
        _commit(file, path)


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _commit(file: IO[bytes], path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
    _partial(path).replace(path)


def write_text(path: Path, text: str) -> None:
    with atomic(path) as file:
        file.write(text.encode())


class ShardWriter:
    """Samples of all kinds and splits → `KIND-SPLIT-NNNNNN.tar` of a fixed number of samples each."""

    def __init__(self, out: Path, samples_per_shard: int) -> None:
        self.out, self.per_shard = out, samples_per_shard
        self.rows: list[dict[str, Any]] = []
        self._counts: dict[tuple[str, str], int] = {}
        self._open: dict[tuple[str, str], _Shard] = {}

    def __enter__(self) -> Self:
        for pattern in PATTERNS:  # of a run that was broken off
            for path in self.out.glob(pattern):
                path.unlink()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        for shard in self._open.values():
            shard.close(discard=kind is not None)
        self._open.clear()

    def write(self, sample: Sample) -> None:
        """Append a sample; its key is its running number among those of its kind and split."""
        stream = (sample.kind, sample.split)
        number = self._counts.get(stream, 0)
        shard = self._open.get(stream)
        if shard is None:
            name = f"{sample.kind}-{sample.split}-{number // self.per_shard:06d}.tar"
            shard = self._open[stream] = _Shard(self.out / name)
        key = f"{number:09d}"
        members: dict[str, Any] = {"__key__": key, "json": json.dumps(sample.meta).encode()}
        members |= {"mask.png": sample.mask} if sample.mask is not None else {}
        members |= {"png": sample.png} if sample.png is not None else {}
        shard.tar.write(members)
        meta = {name: sample.meta[name] for name in SCHEMA.names if name in sample.meta}
        self.rows.append(
            meta | {"kind": sample.kind, "split": sample.split, "shard": shard.path.name, "key": key}
        )
        self._counts[stream] = number + 1
        if (number + 1) % self.per_shard == 0:
            self._open.pop(stream).close()

    def write_index(self, path: Path) -> None:
        """`patches.parquet`: one row a patch."""
        with atomic(path) as file:
            pq.write_table(pa.Table.from_pylist(self.rows, schema=SCHEMA), file)


class _Shard:
    """One tar on its way to its final path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _partial(path).open("wb")
        self.tar = webdataset.TarWriter(self._file, encoder=False, mtime=0, user="diffgen", group="diffgen")

    def close(self, discard: bool = False) -> None:
        self.tar.close()
        if discard:
            self._file.close()
            _partial(self.path).unlink()
        else:
            _commit(self._file, self.path)
