"""Folders of shards as `diffgen synthesize` writes them, from pictures made here, without a model."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from diffgen.labels import Labels, Picture
from diffgen.synthesis.manifest import Sample
from diffgen.synthesis.shards import ShardWriter, num_shards, shard_indices

LABELS = Labels(("unknown", "stroma", "no", "tumour, deep"), ("lung",), (1.0,))
MPP = 0.25
Pair = tuple[Picture, Any]
"""A picture (H, W, 3) and its label map (H, W)."""


def png(array: Any) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(array).save(sink, "PNG", compress_level=1)
    return sink.getvalue()


def pair(seed: int, height: int = 48, width: int = 64, smooth: float = 3.0) -> Pair:
    """Regions of all classes with holes in them, and a picture in which each pixel differs."""
    rng = np.random.default_rng(seed)
    fields = [gaussian_filter(rng.normal(size=(height, width)), smooth) for _ in LABELS.classes]
    ids = np.argmax(fields, axis=0).astype(np.uint8)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8), ids


def write(
    out: Path | str,
    pairs: Sequence[Pair],
    tile: int | None = None,
    per_shard: int = 2,
    labels: Labels = LABELS,
    failed: Sequence[int] = (),
    region: tuple[int, int] | None = None,
) -> str:
    """The folder of a finished run with these images, or tiles of them; `failed`: samples that are not.

    `region`: (x, y) of what the pictures are regions at, of images of 1,000².
    """
    run: dict[str, Any] = {"seed": 7, "bundle": "abc", "mpp": MPP, "tile": tile, "sampling": {"steps": 20}}
    if region:
        x0, y0 = region
        size = {"width": pairs[0][1].shape[1], "height": pairs[0][1].shape[0]}
        run["region"] = {"x": x0, "y": y0, **size}
    samples: list[Sample] = []
    for number, (image, ids) in enumerate(pairs):
        height, width = ids.shape
        side = tile or max(ids.shape)
        for y in range(0, height, side):
            for x in range(0, width, side):
                part = ids[y : y + side, x : x + side]
                place = {"parent": {"index": number, "height": height, "width": width}, "y": y, "x": x}
                if region:
                    parent = {"index": number, "height": 1000, "width": 1000}
                    place = {"parent": parent, "y": y0, "x": x0, "region": run["region"]}
                record = {
                    "index": len(samples),
                    "seed": 7,
                    "context": "lung" if number % 2 else None,
                    "given_label_map": None,
                    "mpp": MPP,
                    "forwards": 12,
                    "class_shares": [
                        float(s) for s in np.bincount(part.ravel(), minlength=len(labels)) / part.size
                    ],
                    "classes": list(labels.classes),
                    "run": run,
                    **(place if tile or region else {}),
                }
                picture = png(image[y : y + side, x : x + side])
                samples.append(Sample(len(samples), picture, png(part), record))
    writer, n = ShardWriter(str(out), run, per_shard), len(samples)
    writer.begin(n)
    for k in range(num_shards(n, per_shard)):
        indices = shard_indices(k, n, per_shard)
        made = [samples[i] for i in indices if i not in failed]
        writer.write(k, made, {i: "not finite" for i in indices if i in failed})
    writer.finish(n, labels)
    return str(out)
