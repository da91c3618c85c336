"""A Hugging Face dataset: Parquet files with the pictures in them, a card that names features and classes.

`datasets.load_dataset(FOLDER)` opens it, whole or streaming, here or on the Hub, without code of ours. What
the library wants to know of the columns stands twice, as it does in files of its own: in the Parquet schema
and in the card.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from diffgen.export.shard_set import PLACE, ShardSet, place_in_image
from diffgen.labels import Labels
from diffgen.storage import Folder

SHARD = "shard_sha256"
"""In a file's schema: the checksum of the shard that its samples are of."""
GROUP = 2**25  # bytes of pictures that are written, and read by a stream, together

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FIELDS: dict[str, pa.DataType] = {
    "image": PICTURE,
    "label_map": PICTURE,
    "classes": pa.list_(pa.int64()),
    "class_shares": pa.list_(pa.float32()),
    "context": pa.string(),
    "mpp": pa.float64(),
    "seed": pa.int64(),
    "index": pa.int64(),
    "parent": pa.int64(),
    "y": pa.int64(),
    "x": pa.int64(),
    "region": pa.string(),
    "record": pa.string(),
}
DTYPES = {"int64": "int64", "float": "float32", "double": "float64", "string": "string"}
"""Names of Arrow's types, as the library calls them."""

CARD = Path(__file__).parent / "templates" / "hugging_face_card.md"


def write_dataset(shards: ShardSet, out: Folder, advance: Callable[[int], None]) -> None:
    """Write a Parquet file for each shard that has none, or is another since (a larger n), and the card."""
    there = out.files("data", ".parquet")
    names, sums = (shards.table[name].to_numpy(zero_copy_only=False) for name in ("shard", "shard_sha256"))
    about = {"huggingface": json.dumps({"info": {"features": features(shards.labels)}})}
    for shard in sorted(set(names)):
        name, numbers = f"train-{shard.removeprefix('shard-')}.parquet", np.flatnonzero(names == shard)
        schema = pa.schema(list(FIELDS.items()), about | {SHARD: sums[numbers[0]]})
        if name not in there or not _of_shard(out, f"data/{name}", sums[numbers[0]]):
            with out.scratch() as scratch:
                with pq.ParquetWriter(scratch / name, schema) as writer:
                    for group in _groups(shards, numbers):
                        writer.write_table(pa.Table.from_pylist(group, schema=schema))
                out.upload(scratch / name, f"data/{name}")
        advance(len(numbers))
    out.write_text("README.md", card(shards))


def _of_shard(out: Folder, name: str, sha256: str) -> bool:
    """Whether a Parquet file is whole and holds the samples of the shard with this checksum."""
    try:
        with out.open_at(name) as file:
            return (pq.read_schema(file).metadata or {}).get(SHARD.encode()) == sha256.encode()
    except pa.ArrowInvalid:
        return False


def _groups(shards: ShardSet, numbers: Iterable[int]) -> Iterator[list[dict[str, Any]]]:
    """Rows, as many together as are written and read at once."""
    group, size = list[dict[str, Any]](), 0
    for number in numbers:
        row = _row(shards, int(number))
        group.append(row)
        size += len(row["image"]["bytes"])
        if size > GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def _row(shards: ShardSet, number: int) -> dict[str, Any]:
    key, text = shards.place(number).key, shards.file(number, "json")
    record, ids = json.loads(text), shards.label_map(number)
    said = {name: record.get(name) for name in ("class_shares", "context", "mpp", "seed", "index")}
    said |= dict.fromkeys(PLACE) | place_in_image(record)
    return said | {
        "image": {"bytes": shards.file(number, "png"), "path": f"{key}.png"},
        "label_map": {"bytes": shards.file(number, "mask.png"), "path": f"{key}.mask.png"},
        "classes": np.unique(ids).tolist(),
        "record": text.decode(),
    }


def features(labels: Labels) -> dict[str, Any]:
    """The columns as the library describes them in a Parquet schema."""

    def of(name: str, type_: pa.DataType) -> dict[str, Any]:
        if type_ == PICTURE:
            return {"_type": "Image"}
        if name == "classes":
            return {"_type": "Sequence", "feature": {"_type": "ClassLabel", "names": list(labels.classes)}}
        if pa.types.is_list(type_):
            return {"_type": "Sequence", "feature": of("", type_.value_type)}
        return {"_type": "Value", "dtype": DTYPES[str(type_)]}

    return {name: of(name, type_) for name, type_ in FIELDS.items()}


def card(shards: ShardSet) -> str:
    """The card, in the form of the Hub."""

    def of(feature: dict[str, Any]) -> Any:
        if feature["_type"] == "Sequence":
            inner = of(feature["feature"])
            return {"sequence": inner["dtype"] if list(inner) == ["dtype"] else inner}
        if feature["_type"] == "ClassLabel":
            return {"class_label": {"names": {str(i): name for i, name in enumerate(feature["names"])}}}
        return {"dtype": feature.get("dtype", "image")}

    head = {
        "license": "other",
        "pretty_name": "Synthetic histopathology by diffgen",
        "task_categories": ["image-segmentation"],
        "tags": ["histopathology", "synthetic"],
        "dataset_info": {
            "features": [{"name": key} | of(value) for key, value in features(shards.labels).items()]
        },
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
    }
    text = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    return CARD.read_text("utf-8").format(head=text, num=len(shards), bundle=shards.run.get("bundle"))
