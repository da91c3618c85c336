"""Crops of stored latents, read at random: what the image model trains on instead of encoding.

Files are mapped into memory: what is read is what is asked for, from any thread and in any process.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffgen.data.stream import PatchTable, around
from diffgen.errors import UserError, one_line
from diffgen.labels import LabelMap
from diffgen.training.latent_shards import COMPLETE, META, LatentCacheKey, data_digest


class StoredCrops:
    """Random crops of a random variant of the patches whose latents lie in a folder of `diffgen encode`."""

    def __init__(self, folder: Path, patches: PatchTable, sample: bool) -> None:
        """With `sample` latents are drawn from the autoencoder's distribution, else they are its mode.

        Raises `UserError` where the folder is not complete, or was made from other data.
        """
        self.folder, self.patches, self.sample = folder, patches, sample
        self.latent_key = _latent_key(folder)
        if self.latent_key.data != data_digest(patches.folder):
            raise UserError(f"{folder} holds latents of other data than {patches.folder}; encode them anew")
        self._mapped: dict[str, pa.Table] = {}

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_mapped": {}}  # a copy in another process maps the files itself

    def crop(
        self, number: int, side: int, rng: np.random.Generator, holding: int | None = None
    ) -> tuple[NDArray[np.float32], LabelMap]:
        """A crop of `side` latent pixels of a patch: latents (C, side, side), label map (side, side).

        With `holding` it lies around a random latent pixel of that class, if there is one.
        """
        variant = int(rng.integers(self.latent_key.variants))
        mean, log_deviation, labels = self.read(number, variant)
        y, x = self.corner(number, labels, side, rng, holding)
        box = slice(y, y + side), slice(x, x + side)
        latents = mean[:, *box].astype(np.float32)
        if log_deviation is not None:
            noise = rng.standard_normal(latents.shape, dtype=np.float32)
            latents += np.exp(log_deviation[:, *box].astype(np.float32)) * noise
        return latents, labels[box].copy()

    def corner(
        self, number: int, labels: LabelMap, side: int, rng: np.random.Generator, holding: int | None
    ) -> tuple[int, int]:
        """First row and column of a random crop of `side` in a patch's (h, w); around a `holding` pixel.

        Raises `UserError` where it does not fit.
        """
        height, width = labels.shape
        if min(height, width) < side:
            raise UserError(
                f"{self.folder}: patch {number} has {height} × {width} latent pixels, a crop {side}"
            )
        held = np.flatnonzero(labels == holding) if holding is not None else np.zeros(0)
        if len(held):
            row, column = divmod(int(rng.choice(held)), width)
            return around(row, height, side, rng), around(column, width, side, rng)
        return int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))

    def encode(self, crops: Sequence[NDArray[np.float32]]) -> Tensor:
        """Crops of one side → latents (B, C, side, side)."""
        return torch.from_numpy(np.stack(crops))

    def read(
        self, number: int, variant: int
    ) -> tuple[NDArray[np.float16], NDArray[np.float16] | None, LabelMap]:
        """Mean (C, h, w), log-deviation if latents are drawn and have one, label map (h, w)."""
        latent_key, row = self.latent_key, self.patches.rows[number]
        height, width = row["height"] // latent_key.factor, row["width"] // latent_key.factor
        if variant % 2:
            height, width = width, height
        drawn = self.sample and len(latent_key.moments) > 1
        planes = latent_key.channels * (2 if drawn else 1)
        table = self._table(row["shard"])
        place = int(self._places[number]) * latent_key.variants + variant
        moments, labels = (table[name][place].as_buffer() for name in ("moments", "label_map"))
        each = height * width
        if (len(moments), len(labels)) != (2 * latent_key.planes * each, each):
            raise UserError(
                f"{self._path(row['shard'])} is damaged; remove it and {COMPLETE} beside it, and encode anew"
            )
        halves = np.frombuffer(moments, "<f2", planes * each).reshape(planes, height, width)
        label_map = np.frombuffer(labels, np.uint8).reshape(height, width)
        return halves[: latent_key.channels], halves[latent_key.channels :] if drawn else None, label_map

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """Number of a patch → its place in its shard."""
        counts: dict[str, int] = {}
        places = np.empty(len(self.patches), np.int64)
        for number, row in enumerate(self.patches.rows):
            places[number] = counts.get(row["shard"], 0)
            counts[row["shard"]] = int(places[number]) + 1
        return places

    def _path(self, shard: str) -> Path:
        return self.folder / Path(shard).with_suffix(".arrow").name

    def _table(self, shard: str) -> pa.Table:
        """The rows of a shard, in its order, all variants of a patch after each other."""
        if shard not in self._mapped:  # two threads may map the same
            path = self._path(shard)
            try:
                table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            except (OSError, pa.ArrowException) as error:
                raise UserError(f"{path} cannot be read: {one_line(error)}; encode anew") from error
            if (table.schema.metadata or {}).get(META) != self.latent_key.to_json().encode():
                raise UserError(f"{path} is not of the latents in {self.folder / COMPLETE}; encode anew")
            self._mapped[shard] = table
        return self._mapped[shard]


def _latent_key(folder: Path) -> LatentCacheKey:
    try:
        return LatentCacheKey.from_json((folder / COMPLETE).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} holds no complete latents: no readable {COMPLETE} (diffgen encode)"
        ) from error
