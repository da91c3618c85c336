"""The Arrow files of stored latents: what they are, and how one is made from a shard. No Ray in here.

A row is one patch in one variant, not compressed, so that a file is mapped into memory and one row is read
without its neighbours (`stored`). While the autoencoder works, threads decode what comes and write what is
done.
"""

import hashlib
import json
import tarfile
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import torch
from numpy.typing import NDArray

from diffgen.data.stream import dihedral
from diffgen.errors import UserError, one_line
from diffgen.label_maps import on_grid
from diffgen.labels import LabelMap, Picture
from diffgen.models.autoencoder import BATCH_PIXELS, LatentCodec
from diffgen.shards import Member, members, open_picture
from diffgen.storage import atomic

FORMAT = 2
COMPLETE = "latents.json"
"""Written last: a folder that holds it is complete."""
META = b"latents"
"""Where a file's schema says what it was made from."""
COLUMNS = {
    "number": pa.int64(),  # of the patch: its key in the shard
    "variant": pa.int8(),  # turn of `data.stream.dihedral`
    "source": pa.string(),
    "split": pa.string(),
    "height": pa.int32(),  # in latent pixels, of this variant
    "width": pa.int32(),
    "moments": pa.binary(),  # float16 (planes, height, width), little-endian
    "label_map": pa.binary(),  # uint8 (height, width); 0 where unlabelled
}


@dataclass(frozen=True)
class LatentCacheKey:
    """What all files of a folder have in common: in `latents.json`, and in the schema of each."""

    format: int
    autoencoder: str
    """SHA-256 of what it computes: make, weights, scaling and standardisation."""
    data: str
    """SHA-256 of `patches.parquet`."""
    factor: int
    channels: int
    moments: tuple[str, ...]
    """`mean`, and `log_deviation` where the latents vary: `channels` planes each, standardised."""
    variants: int
    """1, or 8: the turns of `data.stream.dihedral`."""

    @property
    def identity(self) -> str:
        """Name of the folder."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    @property
    def planes(self) -> int:
        return len(self.moments) * self.channels

    def to_json(self, **more: float) -> str:
        return json.dumps(asdict(self) | more, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        tree = {name: value for name, value in json.loads(text).items() if name in cls.__dataclass_fields__}
        return cls(**tree | {"moments": tuple(tree["moments"])})


def cache_key(data: Path, codec: LatentCodec, variants: int) -> LatentCacheKey:
    """Of the latents of prepared `data` by this autoencoder."""
    moments = ("mean", "log_deviation") if codec.varies else ("mean",)
    return LatentCacheKey(
        FORMAT, _digest(codec), data_digest(data), codec.factor, codec.channels, moments, variants
    )


def data_digest(data: Path) -> str:
    """SHA-256 of the index of prepared data: its identity."""
    with (data / "patches.parquet").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(codec: LatentCodec) -> str:
    scaling = (type(codec.model).__name__, codec.scale, codec.shift, codec.mean, codec.deviation)
    total = hashlib.sha256(json.dumps(scaling).encode())
    for name, tensor in sorted(codec.model.state_dict().items()):
        array = tensor.detach().cpu().float().contiguous().numpy()
        total.update(f"{name} {array.shape}\n".encode())
        total.update(array)
    return total.hexdigest()


@dataclass(frozen=True)
class LatentShard:
    """A tar of image patches to encode."""

    name: str
    split: str
    patches: list[tuple[str, str, bool, int]] = field(default_factory=list)
    """(key, source, labelled, pixels) of each, in order."""

    @property
    def file(self) -> str:
        return Path(self.name).with_suffix(".arrow").name

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))


@dataclass(frozen=True)
class PatchVariant:
    """A patch in one variant."""

    key: str
    source: str
    variant: int
    picture: Picture
    labels: LabelMap
    """On the latent grid."""


class ShardEncoder:
    """Shards → Arrow files, one at a time."""

    def __init__(
        self, data: Path, folder: Path, codec: LatentCodec, latent_key: LatentCacheKey, readers: int
    ) -> None:
        """`readers` threads decode pictures ahead of the autoencoder."""
        self.data, self.folder, self.codec, self.latent_key, self.readers = (
            data,
            folder,
            codec,
            latent_key,
            readers,
        )
        self.batch_pixels = BATCH_PIXELS["cuda" if codec.device.type == "cuda" else "cpu"]
        fields = [pa.field(name, kind, nullable=False) for name, kind in COLUMNS.items()]
        self.schema = pa.schema(fields, {META: latent_key.to_json()})

    def encode(self, shard: LatentShard, tell: Callable[[int], Any]) -> None:
        """Make the file of a shard; `tell` hears of images as they are done.

        Raises `UserError` where the shard cannot be read, the file not be written, or a latent is not
        finite in half precision; then there is no file.
        """
        written: Future[None] | None = None
        try:
            with (
                atomic(self.folder / shard.file) as sink,
                pa.ipc.new_file(sink, self.schema) as arrow,
                ThreadPoolExecutor(1) as writer,
            ):
                for batch in self._read(shard):
                    moments = self._moments([turned.picture for turned in batch])
                    if written is not None:
                        written.result()
                    written = writer.submit(self._write, arrow, shard, batch, moments)
                    tell(len(batch))
                if written is not None:
                    written.result()
        except KeyError as error:
            raise UserError(f"{self.data / shard.name} lacks a patch: {one_line(error)}") from error
        except (OSError, tarfile.TarError) as error:
            raise UserError(f"{shard.name} → {self.folder / shard.file}: {one_line(error)}") from error

    def _read(self, shard: LatentShard) -> Iterator[list[PatchVariant]]:
        """All variants of all patches, in order, whole patches at a time, about a batch of pixels."""
        pixels = max((n for *_, n in shard.patches), default=1) * self.latent_key.variants
        together = max(1, self.batch_pixels // pixels)
        ahead: deque[Future[list[PatchVariant]]] = deque()
        with (self.data / shard.name).open("rb") as stream:
            found = members(stream)
        with ThreadPoolExecutor(self.readers) as pool:
            for key, source, labelled, _ in shard.patches:
                places = [found[f"{key}.png"], *([found[f"{key}.mask.png"]] if labelled else [])]
                ahead.append(pool.submit(self._decode, shard, key, source, places))
                if len(ahead) > 2 * together + self.readers:
                    yield [turned for _ in range(together) for turned in ahead.popleft().result()]
            while ahead:
                yield [t for _ in range(min(together, len(ahead))) for t in ahead.popleft().result()]

    def _decode(self, shard: LatentShard, key: str, source: str, places: list[Member]) -> list[PatchVariant]:
        """A patch in all variants; `places` are offset and size of its picture and, if labelled, its map."""
        arrays = []
        with (self.data / shard.name).open("rb") as tar:
            for offset, size in places:
                tar.seek(offset)
                arrays.append(self._whole(np.asarray(open_picture(tar.read(size)))))
        picture = arrays[0]
        labels = arrays[1] if len(arrays) > 1 else np.zeros(picture.shape[:2], np.uint8)
        return [
            PatchVariant(
                key, source, v, dihedral(picture, v), on_grid(dihedral(labels, v), self.latent_key.factor)
            )
            for v in range(self.latent_key.variants)
        ]

    def _whole(self, array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Cut to whole latent pixels."""
        height, width = (n // self.latent_key.factor * self.latent_key.factor for n in array.shape[:2])
        return array[:height, :width]

    def _moments(self, pictures: list[Picture]) -> list[NDArray[np.float16]]:
        """(planes, h, w) of each; those of one shape are encoded together."""
        shapes: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, picture in enumerate(pictures):
            shapes[picture.shape].append(i)
        found: dict[int, NDArray[np.float16]] = {}
        for (height, width, _), numbers in shapes.items():
            size = max(1, self.batch_pixels // (height * width))
            for part in (numbers[start : start + size] for start in range(0, len(numbers), size)):
                stacked = torch.from_numpy(np.stack([pictures[i] for i in part])).to(self.codec.device)
                # As `decode.from_picture`, but on the device: a quarter of the bytes go there.
                images = stacked.permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1
                halves = self.codec.moments(images).half().cpu().numpy()
                found |= dict(zip(part, halves, strict=True))
        return [found[i] for i in range(len(pictures))]

    def _write(
        self,
        arrow: pa.ipc.RecordBatchFileWriter,
        shard: LatentShard,
        batch: list[PatchVariant],
        moments: list[NDArray[np.float16]],
    ) -> None:
        for turned, values in zip(batch, moments, strict=True):
            if not np.isfinite(values).all():
                raise UserError(
                    f"a latent of patch {turned.key} of {shard.name} is not finite in half precision"
                )
            assert values.shape[1:] == turned.labels.shape, "latents and label map have one grid"
        columns = {
            "number": [int(turned.key) for turned in batch],
            "variant": [turned.variant for turned in batch],
            "source": [turned.source for turned in batch],
            "split": [shard.split] * len(batch),
            "height": [turned.labels.shape[0] for turned in batch],
            "width": [turned.labels.shape[1] for turned in batch],
            "moments": [values.astype("<f2", copy=False).tobytes() for values in moments],
            "label_map": [turned.labels.tobytes() for turned in batch],
        }
        arrow.write_table(pa.table(columns, schema=self.schema))
