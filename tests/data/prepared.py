"""Prepared data made by hand, as `diffgen prepare` lays it out: tests of training need no slide."""

import io
import json
import tarfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from diffgen import config
from diffgen.appearance import measure
from diffgen.labels import Labels


def make(
    folder: Path,
    settings: config.Settings,
    labels: Labels,
    images: int = 6,
    unlabelled: int = 2,
    maps: int = 4,
    partial: Collection[str] = ("test",),
) -> Path:
    """Image patches at twice the patch side (the last ones unlabelled) and mask patches, of seeded noise.

    The first image patch of the `partial` splits is of a part that is lower: between one patch and two.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for split in ("train", "test"):
        for kind, count in (("image", images), ("mask", maps)):
            shard = f"{kind}-{split}-000000.tar"
            with tarfile.open(folder / shard, "w") as tar:
                for k in range(count):
                    labelled = kind == "mask" or k < images - unlabelled
                    side = (
                        2 * settings.image_patch_px if kind == "image" else settings.mask_model.patch_pixels
                    )
                    lower = kind == "image" and k == 0 and split in partial
                    height = 3 * side // 4 if lower else side
                    blocks = np.kron(rng.integers(1, len(labels), (2, 2)), np.ones((side // 2, side // 2)))
                    label_map = blocks.astype(np.uint8)[:height]
                    shares = labels.shares(label_map) if labelled else [1.0] + [0.0] * (len(labels) - 1)
                    row = {
                        "key": f"{k:09d}", "source": f"slide{k % 2}", "x": 0, "y": 0, "labelled": labelled,
                        "context": k % len(labels.contexts), "shares": shares,
                        "height": height, "width": side,
                    }  # fmt: skip
                    noise = rng.integers(0, 256, (side, side, 3))[:height] // 4
                    picture = (noise + label_map[..., None] * 30).astype(np.uint8)
                    row["appearance"] = measure(picture).tolist() if kind == "image" else None
                    rows.append({"kind": kind, "split": split, "shard": shard, **row})
                    _add(tar, f"{k:09d}.json", json.dumps(row).encode())
                    if labelled:
                        _add(tar, f"{k:09d}.mask.png", _png(label_map))
                    if kind == "image":
                        _add(tar, f"{k:09d}.png", _png(picture))
    pq.write_table(pa.Table.from_pylist(rows), folder / "patches.parquet")
    labels.save(folder / "labels.json")
    (folder / "settings.yaml").write_text(settings.dump())
    shares_by_name = dict.fromkeys(labels.classes, 1 / len(labels))
    counts = {"image": {"train": images, "test": images}, "mask": {"train": maps, "test": maps}}
    statistics = {"patches": counts, "class_shares": {"train": shares_by_name, "test": shares_by_name}}
    (folder / "statistics.json").write_text(
        json.dumps(statistics | {"sources": {"slide0": {}, "slide1": {}}})
    )
    return folder


def _png(array: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(array.astype(np.uint8)).save(sink, "png")
    return sink.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
