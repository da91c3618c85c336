"""A run of many samples, made without a model, for the tests of the shards."""

import io
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from diffgen.labels import Labels
from diffgen.storage import Folder
from diffgen.synthesis.manifest import Sample
from diffgen.synthesis.shards import ShardWriter, num_shards, shard_indices

LABELS = Labels(("unknown", "tumour", "stroma"))
RUN = {"seed": 7, "sampling": {"steps": 20, "multipliers": (1, 2)}, "bundle": "abc"}
PER_SHARD = 4


def png(array: np.ndarray[Any, Any]) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(array).save(sink, "PNG")
    return sink.getvalue()


def make_mask(index: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(index).integers(0, 3, (16, 24), dtype=np.uint8)


def make(index: int, run: Any = RUN) -> Sample:
    image = np.random.default_rng(1000 + index).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    mask = make_mask(index)
    record = {
        "index": index,
        "context": "tissue",
        "class_shares": LABELS.shares(mask),
        "forwards": 12 + index,
        "run": run,
    }
    return Sample(index, png(image), png(mask), record, seconds=float(index))


class Maker:
    """The caller of a writer, as the driver is one: makes what is missing, and counts what it made."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def __call__(self, url: str, n: int, verify: bool = False) -> ShardWriter:
        writer = ShardWriter(url, RUN, PER_SHARD, verify)
        done = writer.begin(n)
        for k in sorted(set(range(num_shards(n, PER_SHARD))) - done):
            samples = writer.salvage(k, n)
            missing = [i for i in shard_indices(k, n, PER_SHARD) if i not in samples]
            self.made += missing
            # Backwards: the order in which samples arrive must not matter.
            writer.write(k, [make(i) for i in reversed(missing)] + list(samples.values()))
        writer.finish(n, LABELS)
        return writer


def tars(url: str) -> dict[str, bytes]:
    store = Folder(url)
    return {name: store.read(name) for name in store.files("", ".tar")}


def manifest(url: str) -> list[dict[str, Any]]:
    """Rows without the seconds: those of a sample that was read back are not known."""
    rows = pq.read_table(io.BytesIO(Folder(url).read("manifest.parquet"))).drop(["seconds"]).to_pylist()
    return list(rows)
