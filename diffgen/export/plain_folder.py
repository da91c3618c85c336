"""A plain folder: `images/`, `masks/` with the same names, `dataset.csv`, `labels.json`."""

import csv
import io
from collections.abc import Callable
from typing import Any

from diffgen.export.shard_set import ShardSet, place_in_image
from diffgen.storage import Folder

TABLE = "dataset.csv"


def write_folder(shards: ShardSet, out: Folder, advance: Callable[[int], None]) -> None:
    """Write what is not there yet: of each sample its picture and label map as they are, the table last."""
    there = {kind: out.files(kind, ".png") for kind in ("images", "masks")}
    text = io.StringIO()
    table: csv.DictWriter[str] | None = None
    for number in range(len(shards)):
        name = f"{shards.place(number).key}.png"
        if name not in there["images"]:
            out.write(f"images/{name}", shards.file(number, "png"))
        if name not in there["masks"]:
            shards.label_map(number)  # refuses an id without a name
            out.write(f"masks/{name}", shards.file(number, "mask.png"))
        said = row(shards, number)
        if table is None:
            table = csv.DictWriter(text, list(said), lineterminator="\n")
            table.writeheader()
        table.writerow(said)
        advance(1)
    out.write_text(TABLE, text.getvalue())


def row(shards: ShardSet, number: int) -> dict[str, Any]:
    """A line of the table: the files, their size, where they come from, and the share of each class."""
    place, record = shards.place(number), shards.record(number)
    said: dict[str, Any] = {
        "file": f"images/{place.key}.png",
        "mask": f"masks/{place.key}.png",
        "width": place.width,
        "height": place.height,
    }
    said |= {name: record.get(name) for name in ("mpp", "context", "seed", "index")}
    said |= place_in_image(record)
    shares = zip(shards.labels.classes, record["class_shares"], strict=True)
    return said | {f"share {name}": share for name, share in shares}
