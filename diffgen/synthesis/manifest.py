"""Samples, and their manifest: a Parquet file per shard with a row per sample, at the end one of all."""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from diffgen.shards import canonical_json
from diffgen.storage import Folder

MEMBERS = ("png", "mask.png", "json")
PART = pa.schema(
    [
        ("shard", pa.string()),
        ("key", pa.string()),
        ("index", pa.int64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("sha256", pa.string()),  # of the image
        ("mask_sha256", pa.string()),
        ("record_sha256", pa.string()),
        ("context", pa.string()),
        ("class_shares", pa.list_(pa.float32())),  # by class id
        ("forwards", pa.int64()),  # of the whole image, for a tile too
        ("forwards_per_megapixel", pa.float32()),
        ("seconds", pa.float64()),  # null for a sample that was read back from a tar
        ("shard_sha256", pa.string()),
        ("shard_bytes", pa.int64()),
        ("failed", pa.string()),  # why the sample is not in the shard; null for one that is
    ]
)


@dataclass(frozen=True)
class Sample:
    """A finished image with its label map, both as PNG (the mask 8-bit grey, a class id a pixel).

    `record` is its provenance, at least: index, context, class_shares (by class id), forwards, run.
    `seconds` goes into the manifest only.
    """

    index: int
    image: bytes
    mask: bytes
    record: Mapping[str, Any]
    seconds: float | None = None

    @property
    def key(self) -> str:
        return f"{self.index:09d}"

    @property
    def members(self) -> Iterator[tuple[str, bytes]]:
        """Names and contents of its files in a tar."""
        contents = self.image, self.mask, canonical_json(self.record)
        return zip((f"{self.key}.{extension}" for extension in MEMBERS), contents, strict=True)

    @classmethod
    def read(cls, files: Mapping[str, bytes]) -> Self:
        """From its files by extension; `ValueError` says what is wrong with them."""
        if set(files) != set(MEMBERS):
            raise ValueError(f"has {', '.join(sorted(files))} instead of {', '.join(MEMBERS)}")
        record = json.loads(files["json"])
        if not isinstance(record, dict) or not isinstance(record.get("index"), int):
            raise ValueError("has a record without an index")
        return cls(record["index"], files["png"], files["mask.png"], record)


def row(shard: str, sample: Sample, height: int, width: int) -> dict[str, Any]:
    """Of a sample in a shard, without what is known of the shard when it is written."""
    whole = {"height": height, "width": width}
    if "region" not in sample.record:  # of a region forwards are its own, of a tile those of the whole
        whole = sample.record.get("parent", whole)
    return {
        "shard": shard,
        "key": sample.key,
        "index": sample.index,
        "height": height,
        "width": width,
        "sha256": hashlib.sha256(sample.image).hexdigest(),
        "mask_sha256": hashlib.sha256(sample.mask).hexdigest(),
        "record_sha256": hashlib.sha256(canonical_json(sample.record)).hexdigest(),
        "context": sample.record["context"],
        "class_shares": sample.record["class_shares"],
        "forwards": sample.record["forwards"],
        "forwards_per_megapixel": 1e6 * sample.record["forwards"] / (whole["height"] * whole["width"]),
        "seconds": sample.seconds,
    }


def hole(shard: str, index: int, reason: str) -> dict[str, Any]:
    """Of a sample that could not be made."""
    return {"shard": shard, "key": f"{index:09d}", "index": index, "failed": reason}


def read(folder: Folder, name: str) -> Any:
    """A table with at least one row; `None` if the file is damaged or has other columns.

    The last columns of the schema may be absent, as they came later: they are null then.
    """
    data = pa.BufferReader(folder.read(name))
    try:
        table = pq.read_table(data)
    except (pa.ArrowInvalid, OSError):
        return None
    for column in PART:
        if column.name not in table.column_names:
            table = table.append_column(column, pa.nulls(len(table), column.type))
    return table if table.schema.equals(PART) and len(table) else None


def write(folder: Folder, name: str, table: Any) -> None:
    """Put a table in place."""
    sink = io.BytesIO()
    pq.write_table(table, sink)
    folder.write(name, sink.getvalue())
