"""Some samples of a run as a set of images: what the evaluation compares, region by region."""

import hashlib
from collections.abc import Sequence
from functools import cached_property

from diffgen.evaluation.images import Images, Region
from diffgen.export.shard_set import ShardSet
from diffgen.labels import LabelMap, Picture

REST = 4
"""A border thinner than a region's side ÷ this is in no region."""


def corners(length: int, side: int, rest: int = 0) -> list[int]:
    """Where windows of `side` pixels begin that cover a length, or leave no more than `rest` pixels of it.

    The last one may overlap the one before.
    """
    found = [*range(0, length - side + 1, side)]
    return found if length - side - found[-1] <= rest else [*found, length - side]


class ShardImages(Images):
    """Samples by their numbers. Unlike those of other sets, regions overlap where much would be left over."""

    def __init__(self, shards: ShardSet, numbers: Sequence[int], sums: Sequence[str]) -> None:
        """`sums`: what each sample's pixels and label map are told by, as the manifest has it."""
        self.shards, self.numbers, self.sums = shards, tuple(numbers), tuple(sums)
        self.where, self.labels, self.mpp = shards.folder.url, shards.labels, shards.mpp
        self._last: tuple[int, Picture, LabelMap] | None = None

    @cached_property
    def number_of(self) -> dict[str, int]:
        """Key → number of the sample."""
        return {self.shards.place(number).key: number for number in self.numbers}

    @property
    def largest(self) -> int:
        places = [self.shards.place(number) for number in self.numbers]
        return min(min(place.height, place.width) for place in places)

    def regions(self, side: int) -> list[Region]:
        found = []
        for number in self.numbers:
            place = self.shards.place(number)
            for y in corners(place.height, side, side // REST):
                across = corners(place.width, side, side // REST)
                found += [Region(place.key, place.key, y, x, side, True) for x in across]
        return found

    def read(self, region: Region) -> tuple[Picture, LabelMap | None]:
        number = self.number_of[region.image]
        if self._last is None or self._last[0] != number:
            self._last = number, self.shards.picture(number), self.shards.label_map(number)
        return self._last[1][region.box], self._last[2][region.box]

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.sums).encode()).hexdigest()
