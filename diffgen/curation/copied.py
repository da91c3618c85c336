"""Which synthetic images are copies of training images: the evaluation's copy search, a file per chunk.

Each image is judged by itself, whatever else is in the set.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diffgen.curation.shard_images import ShardImages
from diffgen.evaluation.copies import matches, searched_in
from diffgen.evaluation.copy_search import SearchedIn
from diffgen.evaluation.images import RegionSet
from diffgen.evaluation.patterns import Fingerprints, fingerprints
from diffgen.labels import Picture
from diffgen.storage import atomic

Done = Callable[[int], object]


@dataclass(frozen=True)
class CopiedFrom:
    """Of one image: the region of it that is most like a training region."""

    key: str
    source: str
    """Training source that it is most like."""
    ncc: float
    copied: bool
    """Whether it is the same to the eye, or shows its tissue."""


@dataclass
class CopySearch:
    """Training regions, made ready when the first chunk is looked at."""

    training: RegionSet
    at_most: int
    """Regions that are looked at of an image, evenly spread over it."""
    cache: Path
    done: Done = field(default=lambda _: None)
    """Told of each training region, once and once more when its points are found."""

    def path(self, chunk: ShardImages) -> Path:
        against = f"{self.training.images.digest[:12]}-{len(self.training)}"
        return self.cache / f"{chunk.digest[:24]}-{against}-{self.training.side}-{self.at_most}.parquet"

    def of(self, chunk: ShardImages) -> list[CopiedFrom]:
        """Of each image of a chunk, from its file where it was looked at before."""
        path = self.path(chunk)
        if not path.exists():
            self.cache.mkdir(parents=True, exist_ok=True)
            rows = [vars(one) for one in self._searched(chunk)]
            with atomic(path) as file:
                pq.write_table(pa.Table.from_pylist(rows), file)
        return [CopiedFrom(**row) for row in pq.read_table(path).to_pylist()]

    @cached_property
    def _ready(self) -> tuple[Fingerprints, SearchedIn]:
        def counted() -> Iterator[Picture]:
            for picture in self.training.pictures():
                yield picture
                self.done(1)

        training = fingerprints(counted())
        return training, searched_in(training, self.done)

    def _searched(self, chunk: ShardImages) -> list[CopiedFrom]:
        crops = spread(chunk.crops(self.training.side), self.at_most)
        training, of = self._ready
        found = matches(fingerprints(crops.pictures()), training, of)
        best: dict[str, CopiedFrom] = {}
        for region, copied, ncc, row in zip(
            crops.regions, found.same.tolist(), found.ncc.tolist(), found.indices.tolist(), strict=True
        ):
            one = CopiedFrom(region.image, self.training.regions[row].source, ncc, copied)
            before = best.get(region.image)
            if before is None or (copied, ncc) > (before.copied, before.ncc):
                best[region.image] = one
        return list(best.values())


def spread(crops: RegionSet, at_most: int) -> RegionSet:
    """At most so many regions of each image, evenly over its own."""
    of: dict[str, list[int]] = {}
    for number, region in enumerate(crops.regions):
        of.setdefault(region.image, []).append(number)
    inside = np.zeros(len(crops), bool)
    for numbers in of.values():
        places = np.linspace(0, len(numbers) - 1, min(at_most, len(numbers)))
        inside[np.asarray(numbers)[places.round().astype(int)]] = True
    return crops.part(inside)
