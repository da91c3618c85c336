"""Prepared data as a set of images: regions of any size, put together from the patches of a source.

Patches overlap, and are one size; a region may be smaller or larger. Regions never overlap, so no tissue
counts twice.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffgen.config import read_yaml
from diffgen.data.remote import local, place_of
from diffgen.data.stream import PatchTable, statistics
from diffgen.errors import UserError
from diffgen.evaluation.images import Images, Region
from diffgen.labels import LabelMap, Picture
from diffgen.urls import is_url

Box = tuple[int, int, int, int]
"""y0, x0, y1, x1 in pixels of a source."""


class Prepared(Images):
    """One split of what `diffgen prepare` wrote."""

    def __init__(self, place: Path | str, split: str) -> None:
        """Of a folder or URL. Raises `UserError` where it holds no such data, or none of that split."""
        self.where = str(place)
        statistics(folder := local(place))
        self.patches, self.split = PatchTable(folder, "image", split), split
        if not len(self.patches):
            raise UserError(f"{place} holds no image patches of its {split} split")
        self.labels = self.patches.labels
        self.cache = None if is_url(place) else folder / "features"
        self.mpp = float(read_yaml(folder / "settings.yaml")["prepare"]["mpp"])

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """(patches, 4): the box of each in its source."""
        corners = np.array([[row["y"], row["x"]] for row in self.patches.rows])
        sides = np.array([[row["height"], row["width"]] for row in self.patches.rows])
        return np.concatenate([corners, corners + sides], axis=1)

    @cached_property
    def by_source(self) -> dict[str, NDArray[np.intp]]:
        """Source → numbers of its patches, from top to bottom."""
        names = np.array([row["source"] for row in self.patches.rows])
        order = np.lexsort((self.places[:, 1], self.places[:, 0]))
        return {str(name): order[names[order] == name] for name in np.unique(names)}

    @cached_property
    def contexts(self) -> dict[str, str]:
        names = self.patches.labels.contexts
        return {row["source"]: names[row["context"]] for row in self.patches.rows}

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
        taken = np.empty((0, 4), np.int64)
        for y0, x0, y1, x1 in self.places[self.by_source[source]].tolist():
            taken = taken[taken[:, 2] > y0]  # the others are met no more
            for y in range(y0, max(y0 + 1, y1 - side + 1), side):
                for x in range(x0, max(x0 + 1, x1 - side + 1), side):
                    box = (y, x, y + side, x + side)
                    if _meeting(taken, box).any() or (parts := self._cover(source, box)) is None:
                        continue
                    taken = np.vstack([taken, box])
                    labelled = all(self.patches.rows[number]["labelled"] for number in parts)
                    yield Region(source, source, y, x, side, labelled)

    def _cover(self, source: str, box: Box) -> list[int] | None:
        """The patches that make up a box, or None if they leave a gap."""
        numbers, parts = self.by_source[source], []
        tops = self.places[numbers, 0]
        tallest = int((self.places[numbers, 2] - tops).max())
        numbers = numbers[np.searchsorted(tops, box[0] - tallest) : np.searchsorted(tops, box[2])]
        seen = np.zeros((box[2] - box[0], box[3] - box[1]), dtype=bool)
        for number in numbers[_meeting(self.places[numbers], box)].tolist():
            inside = _inside(box, self.places[number])
            if not seen[inside].all():
                seen[inside] = True
                parts.append(number)
        return parts if seen.all() else None

    def read(self, region: Region) -> tuple[Picture, LabelMap | None]:
        side, box = region.side, (region.y, region.x, region.y + region.side, region.x + region.side)
        picture = np.empty((side, side, 3), np.uint8)
        labels = np.zeros((side, side), np.uint8) if region.labelled else None
        for number in self._cover(region.source, box) or []:
            place = self.places[number]
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
        return Prepared, (place_of(self.where), self.split)  # workers have another folder


def _meeting(boxes: NDArray[np.int64], box: Box) -> NDArray[np.bool_]:
    """(N,): which boxes (N, 4) meet one."""
    y0, x0, y1, x1 = box
    return (boxes[:, 0] < y1) & (y0 < boxes[:, 2]) & (boxes[:, 1] < x1) & (x0 < boxes[:, 3])


def _inside(box: Sequence[int] | NDArray[np.int64], other: Sequence[int] | NDArray[np.int64]) -> Any:
    """Where `other` lies in `box`, in the pixels of `box`."""
    return tuple(
        slice(max(0, other[axis] - box[axis]), min(box[axis + 2], other[axis + 2]) - box[axis])
        for axis in (0, 1)
    )
