"""Writing of prepared data: WebDataset shards and the index of their patches.

A file is at its final path only when it is complete. The same samples in the same order give the same
bytes. Files are removed only from a folder that carries our mark, and only those that prepare writes.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from diffgen.data.cut import EncodedPatch
from diffgen.errors import UserError
from diffgen.shards import tar_writer
from diffgen.storage import PARTIAL, atomic, write_text

COMPLETE = "statistics.json"
"""Written last: a folder that holds it is complete."""
MARK = "prepare.json"
"""Written first: a folder that holds it is ours, and may be cleaned up."""
MARK_TEXT = json.dumps({"made_by": "diffgen prepare"}) + "\n"
LEFTOVER = re.compile(
    r"((image|mask)-(train|test)-\d{6,}\.tar|patches\.parquet|labels\.json|settings\.yaml|sources\.csv|contact_sheet\.png)"
    rf"({re.escape(PARTIAL)})?|({re.escape(MARK)}|{re.escape(COMPLETE)}){re.escape(PARTIAL)}"
)
"""What a run that was interrupted may have left beside the mark."""
COMPLETED = {"patches.parquet", "labels.json", "settings.yaml", "sources.csv", "contact_sheet.png"}
"""What stands beside the shards of a complete folder."""
SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("split", pa.string()),
        ("shard", pa.string()),
        ("key", pa.string()),
        ("source", pa.string()),
        ("x", pa.int64()),
        ("y", pa.int64()),
        ("height", pa.int64()),  # of what is stored: of a mask patch, in mask pixels
        ("width", pa.int64()),
        ("labelled", pa.bool_()),
        ("context", pa.int64()),
        ("shares", pa.list_(pa.float64())),
        ("appearance", pa.list_(pa.float32())),  # of an image patch: `diffgen.appearance`
    ]
)


def check_folder(out: Path) -> None:
    """`UserError` unless `out` is absent, empty, or made by prepare, whole or not."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out wants a folder")
    names = {path.name for path in out.iterdir()} if out.exists() else set()
    # A run may be interrupted while it writes its mark.
    if names - {MARK + PARTIAL} and not _marked(out):
        raise UserError(f"{out} is not empty and was not made by diffgen prepare; choose another --out")


def claim(out: Path, rows: Sequence[Mapping[str, Any]] = ()) -> None:
    """Mark a folder that passes `check_folder` as ours, and remove what a run interrupted left in it.

    `rows` are those of its index, where it is complete: what they name stays.
    """
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    if not _marked(out):
        write_text(out / MARK, MARK_TEXT)
    stays = {row["shard"] for row in rows} | (COMPLETED if rows else set())
    for path in list(out.iterdir()):
        if LEFTOVER.fullmatch(path.name) and path.name not in stays:
            path.unlink()


def _marked(out: Path) -> bool:
    return (out / MARK).is_file() and (out / MARK).read_bytes() == MARK_TEXT.encode()


class PatchWriter:
    """Samples of all kinds and splits → `KIND-SPLIT-NNNNNN.tar` of a fixed number of samples each."""

    def __init__(self, out: Path, samples_per_shard: int, rows: Sequence[dict[str, Any]] = ()) -> None:
        """`rows` are those of the index of what is there: samples go on in new shards."""
        self.out, self.per_shard = out, samples_per_shard
        self.rows, self.before = list(rows), len(rows)
        self._counts = Counter((row["kind"], row["split"]) for row in rows)
        self._in_shard: Counter[tuple[str, str]] = Counter()
        shards = {(row["kind"], row["split"], row["shard"]) for row in rows}
        self._shards = Counter((kind, split) for kind, split, _ in shards)
        self._open: dict[tuple[str, str], _Shard] = {}

    def __enter__(self) -> Self:
        claim(self.out, self.rows)
        return self

    @property
    def added(self) -> list[dict[str, Any]]:
        """The rows of what was not there before."""
        return self.rows[self.before :]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for shard in self._open.values():
            shard.exit.__exit__(kind, error, trace)
        self._open.clear()

    def write(self, sample: EncodedPatch) -> None:
        """Append a sample; its key is its running number among those of its kind and split."""
        stream = (sample.kind, sample.split)
        number = self._counts[stream]
        shard = self._open.get(stream)
        if shard is None:
            name = f"{sample.kind}-{sample.split}-{self._shards[stream]:06d}.tar"
            shard = self._open[stream] = _Shard(self.out / name)
            self._shards[stream] += 1
            self._in_shard[stream] = 0
        key = f"{number:09d}"
        members: dict[str, Any] = {"__key__": key, "json": json.dumps(sample.meta).encode()}
        members |= {"mask.png": sample.mask} if sample.mask is not None else {}
        members |= {"png": sample.png} if sample.png is not None else {}
        shard.tar.write(members)
        meta = {name: sample.meta[name] for name in SCHEMA.names if name in sample.meta}
        self.rows.append(
            meta | {"kind": sample.kind, "split": sample.split, "shard": shard.path.name, "key": key}
        )
        self._counts[stream] += 1
        self._in_shard[stream] += 1
        if self._in_shard[stream] == self.per_shard:
            self._open.pop(stream).exit.close()

    def write_index(self, path: Path) -> None:
        """`patches.parquet`: one row per patch."""
        with atomic(path) as file:
            pq.write_table(pa.Table.from_pylist(self.rows, schema=SCHEMA), file)


class _Shard:
    """One tar on its way to its final path, where `exit` brings it unless there was an error."""

    def __init__(self, path: Path) -> None:
        self.path, self.exit = path, ExitStack()
        self.tar = self.exit.enter_context(tar_writer(self.exit.enter_context(atomic(path))))
