"""What an interrupted run has cut: patches in their order, so that the same command need not cut them again.

One file of Arrow streams, one after the other; what a kill leaves half-written at its end is not read. It
says what it is of, and is gone when the run is complete.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pyarrow as pa

from diffgen.data.cut import EncodedPatch
from diffgen.data.formats.base import LeftOut

NAME = "cut.spool"
FLUSH = 64
"""Patches written at once."""
SCHEMA = pa.schema(
    [
        ("job", pa.int64()),
        ("kind", pa.string()),
        ("split", pa.string()),
        ("meta", pa.string()),
        ("png", pa.binary()),
        ("mask", pa.binary()),
    ]
)
LEFT_OUT = "left out"
Made = EncodedPatch | LeftOut


class Spool:
    """Appends what the jobs of a run have made; `of` is a digest of all that shapes it."""

    def __init__(self, folder: Path, of: str) -> None:
        self.path, self.of = folder / NAME, of
        self.rows: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.path.unlink(missing_ok=True)
        else:
            self.flush()

    def read(self) -> Iterator[tuple[int, Made]]:
        """(job, what it made) of all jobs but the last, which may not be whole; the file is cut to them."""
        if not self.path.exists():
            return
        pending: list[dict[str, Any]] = []
        keep, before = 0, list[dict[str, Any]]()  # where the stream with the last job's first row begins
        with self.path.open("rb+") as file:
            while True:
                start = file.tell()
                rows = self._next(file)
                if rows is None:
                    break
                for number, row in enumerate(rows):
                    if not pending or pending[0]["job"] != row["job"]:
                        yield from ((old["job"], _made(old)) for old in pending)
                        pending, keep, before = [], start, rows[:number]
                    pending.append(row)
            file.truncate(keep)
        self.rows = before

    def _next(self, file: IO[bytes]) -> list[dict[str, Any]] | None:
        """The rows of the next stream; None at the end, or where it is damaged or of another run."""
        try:
            with pa.ipc.open_stream(file) as stream:
                if (stream.schema.metadata or {}).get(b"of") != self.of.encode():
                    return None
                found: list[dict[str, Any]] = stream.read_all().to_pylist()
                return found
        except (pa.ArrowInvalid, OSError):
            return None

    def add(self, job: int, made: Made) -> None:
        """What a job made, in the order of the jobs."""
        self.rows.append(_row(job, made))
        if len(self.rows) >= FLUSH:
            self.flush()

    def flush(self) -> None:
        if self.rows:
            schema = SCHEMA.with_metadata({"of": self.of})
            with self.path.open("ab") as file, pa.ipc.new_stream(file, schema) as stream:
                stream.write_table(pa.Table.from_pylist(self.rows, schema=schema))
        self.rows = []


def _row(job: int, made: Made) -> dict[str, Any]:
    if isinstance(made, LeftOut):
        return {"job": job, "kind": LEFT_OUT, "split": "", "meta": str(made), "png": None, "mask": None}
    meta = json.dumps(made.meta)
    return {
        "job": job, "kind": made.kind, "split": made.split, "meta": meta, "png": made.png, "mask": made.mask
    }  # fmt: skip


def _made(row: dict[str, Any]) -> Made:
    if row["kind"] == LEFT_OUT:
        return LeftOut(row["meta"])
    return EncodedPatch(row["kind"], row["split"], json.loads(row["meta"]), row["png"], row["mask"])
