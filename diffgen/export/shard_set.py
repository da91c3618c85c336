"""The samples of a folder that `diffgen synthesize` wrote, one by one in any order, here or behind any URL.

Shards are plain tars, so a sample is read by its place in its tar: whoever wants some of them, in whatever
order, reads no others. Whole images are put together from their tiles row by row, never all at once.
"""

import io
import json
import tarfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from diffgen import label_maps
from diffgen.errors import UserError, counted, one_line, warn
from diffgen.labels import LabelMap, Labels, Picture
from diffgen.shards import Member, members, open_png
from diffgen.storage import Folder

Kind = Literal["png", "mask.png"]
"""What is taken of an image: the picture, or its label map."""
COLUMNS = ("shard", "key", "height", "width")
PLACE = ("parent", "y", "x", "region")
TARS_KNOWN = 64  # shards whose members' places are kept


class Place(NamedTuple):
    """Where a sample is, and its size."""

    shard: str
    key: str
    height: int
    width: int


def place_in_image(record: Mapping[str, Any]) -> dict[str, Any]:
    """Where a tile or a region lies, as `PLACE` has it; nothing of a whole image.

    `parent` is the index of its image, `y` and `x` are pixels there; a `region` is said as `--region` has it.
    """
    if "parent" not in record:
        return {}
    found = {"parent": record["parent"]["index"], "y": record["y"], "x": record["x"]}
    if region := record.get("region"):
        found["region"] = ",".join(str(region[side]) for side in ("x", "y", "width", "height"))
    return found


class ShardSet:
    """The samples of a finished run, in the order of their index; picklable.

    Raises `UserError` where there is no finished run, or it cannot be read.
    """

    def __init__(self, where: str) -> None:
        self.folder = Folder(where)
        try:
            manifest = self.folder.read("manifest.parquet")
            run = self.folder.read("run.json")
            labels = self.folder.read("labels.json")
        except OSError as error:
            if isinstance(error, FileNotFoundError) and self.folder.entries():
                said = "was not made by diffgen synthesize, or is not finished: the same command resumes it"
                raise UserError(f"{where} {said}") from error
            raise UserError(f"{where}: no shards can be read there ({one_line(error)})") from error
        try:
            table = pq.read_table(io.BytesIO(manifest))
            made = table.filter(pc.is_null(table["failed"])) if "failed" in table.column_names else table
            self.table = made.select([*COLUMNS, "index", "shard_sha256"]).sort_by("index").combine_chunks()
            self.run: dict[str, Any] = json.loads(run)
            self.labels = Labels.from_json(json.loads(labels))
        except (pa.ArrowException, KeyError, ValueError) as error:
            raise UserError(f"{where}: {one_line(error)}") from error
        if not len(self.table):
            raise UserError(f"{where} has no samples: all of them failed, as manifest.parquet says")
        self._members: OrderedDict[str, dict[str, Member]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_members": OrderedDict()}

    def __len__(self) -> int:
        return len(self.table)

    @property
    def mpp(self) -> float | None:
        """µm per pixel of all images."""
        return self.run.get("mpp")

    def place(self, number: int) -> Place:
        return Place(*(self.table[name][number].as_py() for name in COLUMNS))

    def name(self, number: int) -> str:
        """What messages call a sample."""
        place = self.place(number)
        return f"{self.folder}/{place.shard}.tar: {place.key}"

    def file(self, number: int, extension: str) -> bytes:
        """One of a sample's files, `png`, `mask.png` or `json`; `UserError` where it cannot be read."""
        place = self.place(number)
        try:
            with self.folder.open_at(f"{place.shard}.tar") as stream:
                found = self._of(place.shard, stream)[f"{place.key}.{extension}"]
                data: bytes = stream.read_at(found.size, found.offset)
        except (OSError, tarfile.TarError, KeyError) as error:
            said = "the same diffgen synthesize makes anew what is damaged"
            raise UserError(
                f"{self.name(number)}.{extension} cannot be read ({one_line(error)}); {said}"
            ) from error
        return data

    def _of(self, shard: str, stream: Any) -> dict[str, Member]:
        """Places of the files of a shard."""
        if shard not in self._members:
            self._members[shard] = members(stream)
            if len(self._members) > TARS_KNOWN:
                self._members.popitem(last=False)
        return self._members[shard]

    def record(self, number: int) -> dict[str, Any]:
        """A sample's provenance."""
        record = json.loads(self.file(number, "json"))
        assert isinstance(record, dict)
        return record

    def picture(self, number: int) -> Picture:
        """(H, W, 3) RGB."""
        try:
            return np.asarray(open_png(self.file(number, "png"), decode=False).convert("RGB"))
        except (ValueError, OSError, SyntaxError) as error:
            raise UserError(f"{self.name(number)}.png: {one_line(error)}") from error

    def label_map(self, number: int) -> LabelMap:
        """(H, W) class ids, each of which `labels.json` names."""
        return self.named(
            label_maps.read(self.file(number, "mask.png"), f"{self.name(number)}.mask.png"), number
        )

    def named(self, ids: LabelMap, number: int) -> LabelMap:
        """The same ids; `UserError` names one without a name."""
        if (most := int(ids.max(initial=0))) >= len(self.labels):
            raise UserError(
                f"{self.name(number)}.mask.png holds class {most}, which labels.json does not name: "
                f"it names 0 to {len(self.labels) - 1}"
            )
        return ids

    def pixels(self, number: int, kind: Kind) -> NDArray[np.uint8]:
        return self.picture(number) if kind == "png" else self.label_map(number)

    @cached_property
    def images(self) -> list["WholeImage"]:
        """The images, of which samples may be tiles; one that lacks a tile is left out with a warning."""
        if not self.run.get("tile"):
            return [self._alone(number) for number in range(len(self))]
        found, number = list[WholeImage](), 0
        indices = self.table["index"].to_numpy()
        while number < len(self):
            record = self.record(number)
            parent, side = record["parent"], int(self.run["tile"])
            across, tiles = parent["width"] // side, parent["height"] * parent["width"] // side**2
            first = int(indices[number]) - (record["y"] // side * across + record["x"] // side)
            end = int(np.searchsorted(indices, first + tiles))
            name = f"{parent['index']:09d}"
            if end - number == tiles:
                found.append(WholeImage(self, name, parent["height"], parent["width"], number, side))
            else:
                lost = counted(tiles - (end - number), "tile")
                warn(f"image {name} is left out: {lost} of it could not be made")
            number = end
        if not found:
            raise UserError(f"{self.folder}: no image has all of its tiles")
        return found

    def _alone(self, number: int) -> "WholeImage":
        """An image that is one sample; of a region the name says where it lies."""
        sample = self.place(number)
        place = place_in_image(self.record(number)) if self.run.get("region") else {}
        name = sample.key + (f"_x{place['x']}_y{place['y']}" if place else "")
        return WholeImage(self, name, sample.height, sample.width, number, None, place)


@dataclass(frozen=True)
class WholeImage:
    """An image (or the region of one) that is one sample, or that many samples are the tiles of."""

    shards: ShardSet
    name: str
    height: int
    width: int
    first: int
    """Number of its (first) sample."""
    tile: int | None
    """Side of its tiles, which lie row by row in the order of their samples."""
    place: dict[str, Any] = field(default_factory=dict)
    """Of a region: `place_in_image` its record."""
    read: Callable[[int], None] = lambda _: None
    """Told how many samples were read."""

    @property
    def samples(self) -> int:
        """How many samples it is."""
        return 1 if self.tile is None else self.height * self.width // self.tile**2

    def bands(self, kind: Kind) -> Iterator[NDArray[np.uint8]]:
        """Rows of tiles from top to bottom: (h, W, 3) of the picture, or (h, W) of the label map."""
        if self.tile is None:
            yield self.shards.pixels(self.first, kind)
            self.read(1)
            return
        across = self.width // self.tile
        for row in range(self.first, self.first + self.samples, across):
            band = np.empty((self.tile, self.width, *[3] * (kind == "png")), np.uint8)
            for column in range(across):
                left = column * self.tile
                band[:, left : left + self.tile] = self.shards.pixels(row + column, kind)
            yield band
            self.read(across)
