"""Regions with what is in them: what a small network learns from, or is judged on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from diffgen.errors import UserError
from diffgen.evaluation.images import Images, Region, RegionSet
from diffgen.labels import LabelMap, Labels, Picture


@dataclass(frozen=True)
class LabelledRegions:
    """What a network learns from, or is judged on."""

    crops: RegionSet
    positive: NDArray[np.bool_] | None = None
    """(N,), of classification."""

    @cached_property
    def digest(self) -> str:
        regions = [list(vars(region).values()) for region in self.crops.regions]
        total = hashlib.sha256(json.dumps([self.crops.images.digest, regions]).encode())
        total.update(b"" if self.positive is None else self.positive.tobytes())
        return total.hexdigest()

    def read(self, numbers: Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Pictures (B, side, side, 3) and what is in them: label maps (B, side, side), or 0 and 1 (B,)."""
        images, regions = self.crops.images, [self.crops.regions[number] for number in numbers]
        pictures = np.stack([images.read(region)[0] for region in regions])
        if self.positive is not None:
            return pictures, self.positive[list(numbers)].astype(np.uint8)
        return pictures, np.stack([images.label_map(region) for region in regions])


class GroupedClasses(Images):
    """A set of images some of whose classes count as one."""

    def __init__(self, images: Images, groups: Mapping[str, Sequence[str]]) -> None:
        """`UserError` where a class is unknown, in two groups, or the set does not name its classes."""
        if images.labels is None:
            raise UserError(f"evaluation.downstream.groups: {images.where} does not name its classes")
        known = images.labels.classes
        of = dict[str, str]()
        for group, names in groups.items():
            for name in names:
                if name not in known[1:] or name in of:
                    said = (
                        "in two groups" if name in of else f"no such class; there are {', '.join(known[1:])}"
                    )
                    raise UserError(f"evaluation.downstream.groups: {name}: {said}")
                of[name] = group
        merged = list(dict.fromkeys(of.get(name, name) for name in known))
        self.ids = np.array([merged.index(of.get(name, name)) for name in known], np.uint8)
        self.images, self.labels = images, Labels(tuple(merged))
        self.where, self.mpp, self.cache = images.where, images.mpp, images.cache

    @cached_property
    def contexts(self) -> Mapping[str, str]:
        return self.images.contexts

    @property
    def largest(self) -> int:
        return self.images.largest

    def regions(self, side: int) -> list[Region]:
        return self.images.regions(side)

    def read(self, region: Region) -> tuple[Picture, LabelMap | None]:
        picture, label_map = self.images.read(region)
        return picture, None if label_map is None else self.ids[self.images.label_map(region)]

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.images.digest} {self.ids.tolist()}".encode()).hexdigest()
