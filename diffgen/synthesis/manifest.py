"""The manifest: a Parquet file per shard with a row per sample, and their tables in one at the end."""

import hashlib
import io
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from diffgen.shards import canonical_json
from diffgen.storage import Folder

if TYPE_CHECKING:
    from diffgen.synthesis.shards import Sample

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


def row(shard: str, sample: "Sample", height: int, width: int) -> dict[str, Any]:
    """Of a sample in a shard, without what is known of the shard when it is written."""
    whole = sample.record.get("parent", {"height": height, "width": width})
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
