"""What is compared: square regions of one size out of shards, folders or prepared data.

Invariants: regions of a set never overlap, their order is that of the set, and a region is read the same
way wherever it lies. Pixels are 8-bit RGB as they were stored: nothing here resizes or recodes.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console

from diffgen.errors import UserError
from diffgen.labels import LabelMap, Labels, Picture
from diffgen.storage import Folder

FEW_SOURCES = 8
"""With fewer sources intervals are formed over blocks of them: too narrow, but not empty."""
BLOCK = 4  # regions along the side of such a block


@dataclass(frozen=True)
class Region:
    """A square part of one image."""

    image: str
    """Key of the image in its set."""
    source: str
    """Slide, file or parent image: regions of one source are alike."""
    y: int
    x: int
    """Top left corner in the image (of prepared data: in the source), in pixels."""
    side: int
    """In pixels."""
    labelled: bool

    @property
    def box(self) -> tuple[slice, slice]:
        return slice(self.y, self.y + self.side), slice(self.x, self.x + self.side)


class Images(ABC):
    """A set of images, some or all of them with label maps. Can be sent to other processes."""

    where: str
    """As the user named it."""
    labels: Labels | None
    """Names of the classes, where the set tells them."""
    mpp: float | None
    """µm per pixel, where the set tells it."""
    cache: Path | None = None
    """Where features of its images are kept for any report; None: with the report."""
    patch_px: int | None = None
    """Side in pixels of the patches that the images were made of, where they are synthetic and tell it."""
    given_label_maps: bool = False
    """Whether synthetic images fill label maps that were given, not drawn by a mask model."""

    @property
    @abstractmethod
    def largest(self) -> int:
        """Side in pixels of the largest square that every image holds, or all but a few small ones."""

    @cached_property
    def contexts(self) -> Mapping[str, str]:
        """Source → its context, of a set that tells them."""
        return {}

    def smaller_than(self, side: int) -> int:
        """Number of images without a region of `side` pixels."""
        del side
        return 0

    @abstractmethod
    def regions(self, side: int) -> list[Region]:
        """All regions of `side` pixels, none over another; of a set of large images, their tiles."""

    def crops(self, side: int) -> "RegionSet":
        """All regions of `side` pixels as a set."""
        return RegionSet(self, tuple(self.regions(side)))

    def covering(self, side: int) -> "RegionSet":
        """Regions of `side` pixels that cover all images of at least that side, and may overlap."""
        return self.crops(side)

    @abstractmethod
    def read(self, region: Region) -> tuple[Picture, LabelMap | None]:
        """Picture (side, side, 3) and label map (side, side) of a region."""

    @cached_property
    @abstractmethod
    def digest(self) -> str:
        """SHA-256 of all pixels and label maps, or of what stands for them."""

    def label_map(self, region: Region) -> LabelMap:
        """The label map of a labelled region; `UserError` where a class id has no name."""
        labels = self.read(region)[1]
        assert labels is not None
        if self.labels is not None and labels.max(initial=0) >= len(self.labels):
            known = f"ids 0 to {len(self.labels) - 1}"
            raise UserError(
                f"{self.where}: {region.image} has class id {labels.max()}; labels.json has {known}"
            )
        return labels


@dataclass(frozen=True)
class RegionSet:
    """Some regions of a set, in a fixed order."""

    images: Images
    regions: tuple[Region, ...]

    def __len__(self) -> int:
        return len(self.regions)

    @property
    def side(self) -> int:
        return self.regions[0].side

    @property
    def labelled(self) -> "RegionSet":
        return RegionSet(self.images, tuple(region for region in self.regions if region.labelled))

    def part(self, inside: NDArray[np.bool_]) -> "RegionSet":
        """The regions at which `inside` (N,) is true."""
        return RegionSet(self.images, tuple(r for r, here in zip(self.regions, inside, strict=True) if here))

    def pictures(self) -> Iterator[Picture]:
        return (self.images.read(region)[0] for region in self.regions)

    def label_maps(self) -> Iterator[LabelMap]:
        """Of all regions, each of which is labelled. Raises `UserError` for an unknown class id."""
        return (self.images.label_map(region) for region in self.regions)

    @cached_property
    def groups(self) -> NDArray[np.intp]:
        """(N,): which regions are drawn together when a bootstrap draws sources.

        A set of few sources is divided into blocks of regions.
        """
        names: Sequence[Any] = [region.source for region in self.regions]
        if len(set(names)) < FEW_SOURCES:
            wide = BLOCK * self.side
            names = [(r.source, r.image, r.y // wide, r.x // wide) for r in self.regions]
        numbers = {name: k for k, name in enumerate(dict.fromkeys(names))}
        return np.array([numbers[name] for name in names], dtype=np.intp)

    def drawn(self, count: int, seed: int = 0) -> "RegionSet":
        """At most `count` regions, as evenly from all sources as can be, in the order of the set."""
        if count >= len(self.regions):
            return self
        rng = np.random.default_rng(seed)
        by_source: dict[str, list[int]] = {}
        for number, region in enumerate(self.regions):
            by_source.setdefault(region.source, []).append(number)
        turns = [(turn, rng.random(), number) for numbers in by_source.values()
                 for turn, number in enumerate(rng.permutation(numbers).tolist())]  # fmt: skip
        chosen = sorted(number for _, _, number in sorted(turns)[:count])
        return RegionSet(self.images, tuple(self.regions[number] for number in chosen))


def open_images(
    where: str, split: str | None = None, mpp: float | None = None, console: Console | None = None
) -> Images:
    """The images at `where`: prepared data (one `split` of it), WebDataset shards, or a folder of images.

    `mpp` is that of files which do not say their own. Raises `UserError` where there is nothing to read, a
    shard is cut short, a run is not finished, or `where` is a bundle, which has to be sampled from first.
    """
    from diffgen.evaluation import files, prepared

    root = Path(where)
    if "://" not in where:
        if not root.is_dir():
            raise UserError(f"{where}: no such folder")
        if (root / "patches.parquet").exists():
            return prepared.Prepared(root, split or "train")
        if (root / "model_index.json").exists():
            raise UserError(f"{where} is a bundle: images come from it by diffgen synthesize")
    elif Folder(where).exists("patches.parquet"):
        return prepared.Prepared(where, split or "train")
    return files.open_files(where, mpp, console)


def splits(where: str) -> bool:
    """Whether the images at `where` are parted into what models learn from and what is held out."""
    folder = Folder(where)
    if not folder.exists("patches.parquet"):
        return False
    table = pq.read_table(io.BytesIO(folder.read("patches.parquet")), columns=["split"])
    return "test" in table["split"].to_pylist()


def check_alike(real: Images, synthetic: Images) -> None:
    """`UserError` where two sets cannot be compared: other classes, other µm per pixel."""
    if real.labels is not None and synthetic.labels is not None:
        one, other = real.labels.classes, synthetic.labels.classes
        if one != other:
            raise UserError(
                f"{synthetic.where} has other classes than {real.where}: "
                f"{', '.join(other)} instead of {', '.join(one)}"
            )
    if real.mpp and synthetic.mpp and abs(real.mpp / synthetic.mpp - 1) > 0.01:
        raise UserError(
            f"{synthetic.where} has {synthetic.mpp:g} µm per pixel, {real.where} has {real.mpp:g}: "
            "prepare the real images at that scale (--set prepare.mpp=…)"
        )
