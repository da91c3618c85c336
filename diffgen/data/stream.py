"""Prepared patches, read at random: what training draws from.

A shard is a plain tar, so a patch is read by its offset: the data may be larger than memory, and is
read in whatever order (seed, step) asks for.
"""

import json
import threading
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from diffgen.errors import UserError
from diffgen.labels import LabelMap, Labels, Picture
from diffgen.shards import Member, members, open_picture

Kind = str
"""`image`: picture at twice the patch side, label map if labelled; `mask`: label map at the mask's scale."""


class PatchTable:
    """The patches of one kind and split of a prepared folder, by number in the order of the shards."""

    def __init__(
        self, folder: Path, kind: Kind, split: str = "train", cache_mb: int = 512, least: int = 0
    ) -> None:
        """`least`: side of the largest crop, in stored pixels; what is smaller is not drawn.

        Raises `UserError` where the folder holds no such prepared data.
        """
        self.folder, self.least = folder, least
        self.filesystem, self.root = pyarrow.fs.FileSystem.from_uri(str(folder.absolute()))
        try:
            table = pq.read_table(f"{self.root}/patches.parquet", filesystem=self.filesystem)
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise UserError(
                f"{folder} holds no prepared data (diffgen prepare SOURCE… --out {folder})"
            ) from error
        rows = [row for row in table.to_pylist() if row["kind"] == kind and row["split"] == split]
        self.rows: list[dict[str, Any]] = rows
        self.labels = Labels.load(folder / "labels.json")
        self._cache: OrderedDict[tuple[str, str], NDArray[np.uint8]] = OrderedDict()
        self._cache_left = cache_mb * 2**20
        self._lock = threading.Lock()  # batches are read ahead in threads

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        kept = sum(array.nbytes for array in self._cache.values())
        state = self.__dict__ | {"_cache": OrderedDict(), "_cache_left": self._cache_left + kept}
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    @cached_property
    def members(self) -> dict[tuple[str, str], Member]:
        """(shard, file name) → where its bytes lie."""
        found: dict[tuple[str, str], Member] = {}
        for shard in sorted({row["shard"] for row in self.rows}):
            with self.filesystem.open_input_file(f"{self.root}/{shard}") as stream:
                found |= {(shard, name): member for name, member in members(stream).items()}
        return found

    @cached_property
    def drawn(self) -> NDArray[np.intp]:
        """Numbers of the patches that every crop fits in."""
        return np.flatnonzero([min(row["height"], row["width"]) >= self.least for row in self.rows])

    @cached_property
    def labelled(self) -> NDArray[np.intp]:
        """Numbers of those drawn that have a label map: q₁ of eq. (9)."""
        return np.array([n for n in self.drawn if self.rows[n]["labelled"]], np.intp)

    @cached_property
    def unlabelled(self) -> NDArray[np.intp]:
        """Numbers of those drawn that have none: q₀ of eq. (9)."""
        return np.array([n for n in self.drawn if not self.rows[n]["labelled"]], np.intp)

    @cached_property
    def by_class(self) -> dict[int, NDArray[np.intp]]:
        """Class id (0 aside) → numbers of the labelled patches that hold it."""
        shares = np.array([self.rows[i]["shares"] for i in self.labelled]).reshape(-1, len(self.labels))
        return {c: self.labelled[shares[:, c] > 0] for c in range(1, len(self.labels)) if shares[:, c].any()}

    def context(self, number: int) -> int:
        return int(self.rows[number]["context"])

    @property
    def appearances(self) -> NDArray[np.float32]:
        """(N, A): `diffgen.appearance` of each patch. Raises `UserError` where it was not measured."""
        found = [row.get("appearance") for row in self.rows]
        if not all(found):
            raise UserError(f"{self.folder} was prepared without appearances: prepare it anew")
        return np.array(found, np.float32)

    def picture(self, number: int) -> Picture:
        """(H, W, 3) RGB."""
        return self._read(number, "png")

    def label_map(self, number: int) -> LabelMap:
        """(H, W) class ids."""
        return self._read(number, "mask.png")

    def _read(self, number: int, extension: str) -> NDArray[np.uint8]:
        row = self.rows[number]
        key = row["shard"], f"{row['key']}.{extension}"
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        member = self.members[key]
        with self.filesystem.open_input_file(f"{self.root}/{row['shard']}") as stream:
            array = np.asarray(open_picture(stream.read_at(member.size, member.offset)))
        with self._lock:
            self._keep(key, array)
        return array

    def _keep(self, key: tuple[str, str], array: NDArray[np.uint8]) -> None:
        if key in self._cache:  # two threads have read it
            return
        self._cache[key] = array
        self._cache_left -= array.nbytes
        while self._cache_left < 0 and self._cache:
            _, dropped = self._cache.popitem(last=False)
            self._cache_left += dropped.nbytes


def statistics(folder: Path) -> dict[str, Any]:
    """`statistics.json` of prepared data; `UserError` where it is not there, that is: not complete."""
    try:
        found: dict[str, Any] = json.loads((folder / "statistics.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(
            f"{folder} holds no prepared data (diffgen prepare SOURCE… --out {folder})"
        ) from error
    return found


def crop(
    picture: Picture,
    label_map: LabelMap | None,
    side: int,
    rng: np.random.Generator,
    holding: int | None = None,
) -> tuple[Picture, LabelMap]:
    """A random square crop and one of its eight flips and turns; without a label map all is unknown.

    With `holding` it lies around a random pixel of that class.
    """
    height, width = picture.shape[:2]
    labels = np.zeros((height, width), np.uint8) if label_map is None else label_map
    if holding is None:
        y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    else:
        row, column = divmod(int(rng.choice(np.flatnonzero(labels == holding))), width)
        y, x = around(row, height, side, rng), around(column, width, side, rng)
    turn = int(rng.integers(8))
    box = slice(y, y + side), slice(x, x + side)
    return dihedral(picture[box], turn), dihedral(labels[box], turn)


def around(pixel: int, length: int, side: int, rng: np.random.Generator) -> int:
    """Start of a span of `side` pixels that holds `pixel`."""
    return int(rng.integers(max(0, pixel - side + 1), min(pixel, length - side) + 1))


def dihedral(array: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    """One of the eight flips and quarter turns of (H, W, …)."""
    turned = np.rot90(array, turn % 4)
    return np.ascontiguousarray(turned[::-1] if turn >= 4 else turned)
