"""Prepared data as a set of images: regions of any size, put together from the patches of a source.

Patches overlap, and are one size; a region may be smaller or larger. Regions never overlap, so no tissue
counts twice.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from diffgen.config import read_yaml
from diffgen.data.stream import PatchTable, statistics
from diffgen.errors import UserError
from diffgen.evaluation.images import Images, Region
from diffgen.labels import LabelMap, Picture

Box = tuple[int, int, int, int]
"""y0, x0, y1, x1 in pixels of a source."""


class Prepared(Images):
    """One split of what `diffgen prepare` wrote."""

    def __init__(self, folder: Path, split: str) -> None:
        """Raises `UserError` where the folder holds no such data, or none of that split."""
        statistics(folder)
        self.patches, self.split = PatchTable(folder, "image", split), split
        if not len(self.patches):
            raise UserError(f"{folder} holds no image patches of its {split} split")
        self.where, self.labels = str(folder), self.patches.labels
        self.mpp = float(read_yaml(folder / "settings.yaml")["prepare"]["mpp"])

    @cached_property
    def by_source(self) -> dict[str, list[int]]:
        """Source → numbers of its patches, from top to bottom."""
        found: dict[str, list[int]] = defaultdict(list)
        for number, row in enumerate(self.patches.rows):
            found[row["source"]].append(number)
        place = self._place
        return {name: sorted(numbers, key=lambda n: place(n)[:2]) for name, numbers in sorted(found.items())}

    def _place(self, number: int) -> Box:
        row = self.patches.rows[number]
        return row["y"], row["x"], row["y"] + row["height"], row["x"] + row["width"]

    @property
    def largest(self) -> int:
        """Of prepared data: the largest side, in whole patches, of which every source has a region."""
        side = min(min(row["height"], row["width"]) for row in self.patches.rows)
        while len({region.source for region in self.regions(2 * side)}) == len(self.by_source):
            side *= 2
        return side

    @lru_cache(maxsize=4)  # noqa: B019 (a set lives as long as the command)
    def regions(self, side: int) -> list[Region]:
        return [region for source in self.by_source for region in self._of(source, side)]

    def _of(self, source: str, side: int) -> Iterator[Region]:
        """From top to bottom: a region begins where a patch does, or whole sides further."""
        taken, patches = Boxes(side), self._index(source)
        for number in self.by_source[source]:
            y0, x0, y1, x1 = self._place(number)
            for y in range(y0, max(y0 + 1, y1 - side + 1), side):
                for x in range(x0, max(x0 + 1, x1 - side + 1), side):
                    box = (y, x, y + side, x + side)
                    if taken.meets(box) or (parts := self._cover(box, patches)) is None:
                        continue
                    taken.add(box, number)
                    labelled = all(self.patches.rows[n]["labelled"] for n in parts)
                    yield Region(source, source, y, x, side, labelled)

    def _cover(self, box: Box, patches: "Boxes") -> list[int] | None:
        """The patches that make up a box, or None if they leave a gap."""
        seen = np.zeros((box[2] - box[0], box[3] - box[1]), dtype=bool)
        parts = []
        for place, number in patches.near(box):
            inside = _inside(box, place)
            if not seen[inside].all():
                seen[inside] = True
                parts.append(number)
        return parts if seen.all() else None

    @lru_cache(maxsize=8)  # noqa: B019 (as above)
    def _index(self, source: str) -> "Boxes":
        places = {number: self._place(number) for number in self.by_source[source]}
        index = Boxes(max(max(y1 - y0, x1 - x0) for y0, x0, y1, x1 in places.values()))
        for number, place in places.items():
            index.add(place, number)
        return index

    def read(self, region: Region) -> tuple[Picture, LabelMap | None]:
        side, box = region.side, (region.y, region.x, region.y + region.side, region.x + region.side)
        parts = self._cover(box, self._index(region.source)) or []
        picture = np.empty((side, side, 3), np.uint8)
        labels = np.zeros((side, side), np.uint8) if region.labelled else None
        for number in parts:
            place = self._place(number)
            inside, outside = _inside(box, place), _inside(place, box)
            picture[inside] = self.patches.picture(number)[outside]
            if labels is not None:
                labels[inside] = self.patches.label_map(number)[outside]
        return picture, labels

    @cached_property
    def digest(self) -> str:
        total = hashlib.sha256()
        for shard in sorted({row["shard"] for row in self.patches.rows}):
            with (self.patches.folder / shard).open("rb") as file:
                total.update(f"{shard} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return total.hexdigest()

    def __reduce__(self) -> Any:
        return Prepared, (self.patches.folder.absolute(), self.split)  # workers have another folder


class Boxes:
    """Boxes no larger than `side`, found by where they lie."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.cells: dict[tuple[int, int], list[tuple[Box, int]]] = defaultdict(list)

    def add(self, box: Box, number: int) -> None:
        self.cells[box[0] // self.side, box[1] // self.side].append((box, number))

    def near(self, box: Box) -> Iterator[tuple[Box, int]]:
        """Those that meet a box."""
        for row in range(box[0] // self.side - 1, (box[2] - 1) // self.side + 1):
            for column in range(box[1] // self.side - 1, (box[3] - 1) // self.side + 1):
                for other, number in self.cells.get((row, column), ()):
                    if other[0] < box[2] and box[0] < other[2] and other[1] < box[3] and box[1] < other[3]:
                        yield other, number

    def meets(self, box: Box) -> bool:
        return any(True for _ in self.near(box))


def _inside(box: Box, other: Box) -> tuple[slice, slice]:
    """Where `other` lies in `box`, in the pixels of `box`."""
    return (
        slice(max(0, other[0] - box[0]), min(box[2], other[2]) - box[0]),
        slice(max(0, other[1] - box[1]), min(box[3], other[3]) - box[1]),
    )
