"""`diffgen.open`: the samples of a run as arrays, for a loop, for torch, for Ray.

Samples are shared out by their number, not by shards: every worker of every rank reads a stretch of its own,
so that no more shards are needed than there are. All ranks get equally many, or the one with more would wait
for the others for ever; where that does not come out even, a few samples are read twice. None is left out.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from diffgen.export.shard_set import ShardSet
from diffgen.labels import LabelMap, Labels, Picture


class Record(dict[str, Any]):
    """A sample's provenance. Of a batch torch makes a list: it holds values that are no numbers."""


default_collate_fn_map[Record] = lambda batch, **_: batch
Loaded = tuple[Picture, LabelMap, Record]
"""A picture (H, W, 3), its class ids (H, W), its record."""
Transform = Callable[[dict[str, Any]], Any]


class OpenShards:
    """The samples of a run: `len`, `[number]`, iteration, `torch()`, `ray()`."""

    def __init__(self, where: str) -> None:
        """Raises `UserError` where no finished run is."""
        self.shards = ShardSet(where)

    @property
    def labels(self) -> Labels:
        """Names and colours of the classes, by id."""
        return self.shards.labels

    @property
    def run(self) -> dict[str, Any]:
        """What all samples depend on."""
        return self.shards.run

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, number: int) -> Loaded:
        number = range(len(self))[number]  # negative ones, too; IndexError beyond the end
        shards = self.shards
        # Copies: PIL's pixels cannot be written to, and torch warns of that.
        return shards.picture(number).copy(), shards.label_map(number), Record(shards.record(number))

    def __iter__(self) -> Iterator[Loaded]:
        return (self[number] for number in range(len(self)))

    def torch(
        self,
        transform: Transform | None = None,
        shuffle: bool = False,
        seed: int = 0,
        rank: int | None = None,
        world: int | None = None,
    ) -> "ShardDataset":
        """An `IterableDataset` for a `DataLoader`; see `ShardDataset`."""
        return ShardDataset(self, transform, shuffle, seed, rank, world)

    def ray(self, blocks: int | None = None) -> Any:
        """A Ray Dataset of rows `image`, `ids` and `record`, in `blocks` parts that are read apart."""
        import ray.data

        read = _ReadRow(self.shards)
        return ray.data.range(len(self), override_num_blocks=blocks or min(len(self), BLOCKS)).map(read)


BLOCKS = 64


class _ReadRow:
    """Number → row, on any node that sees the shards."""

    def __init__(self, shards: ShardSet) -> None:
        self.shards = shards

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        number = int(row["id"])
        return {
            "image": self.shards.picture(number),
            "ids": self.shards.label_map(number),
            "record": self.shards.record(number),
        }


class ShardDataset(IterableDataset[Any]):
    """Samples for a `DataLoader` with any number of workers, on any number of ranks.

    Without `transform` it yields (image, ids, record). `transform` is given a dictionary of `image`, `label`
    and `record`, as MONAI's dictionary transforms expect it, and what it returns is yielded. `shuffle`: in
    another order in each epoch (`set_epoch`), one for all ranks. Rank and world are those of
    `torch.distributed` where they are not given.
    """

    def __init__(
        self,
        opened: OpenShards,
        transform: Transform | None = None,
        shuffle: bool = False,
        seed: int = 0,
        rank: int | None = None,
        world: int | None = None,
    ) -> None:
        self.opened, self.transform, self.shuffle, self.seed = opened, transform, shuffle, seed
        self.rank, self.world = rank, world
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # workers that stay see it change

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is spawned knows nothing of the process group of its rank.
        rank, world = self._rank()
        return self.__dict__ | ({"rank": rank, "world": world} if world > 1 else {})

    def set_epoch(self, epoch: int) -> None:
        """What the order depends on beside the seed; to be said before each, as to a `DistributedSampler`."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        rank, world = self._rank()
        order = np.arange(len(self.opened))
        if self.shuffle:
            order = np.random.default_rng((self.seed, int(self._epoch))).permutation(order)
        for sample in share(order, rank, world, number, workers):
            image, ids, record = self.opened[int(sample)]
            if self.transform is None:
                yield image, ids, record
            else:
                yield self.transform({"image": image, "label": ids, "record": record})

    def _rank(self) -> tuple[int, int]:
        distributed = torch.distributed
        if self.rank is not None and self.world is not None:
            return self.rank, self.world
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1


def share(order: NDArray[np.int64], rank: int, world: int, worker: int, workers: int) -> NDArray[np.int64]:
    """The samples of one worker of a rank: equally many for each rank, and as even as it goes for workers."""
    each = -(-len(order) // world)
    mine = np.resize(order, each * world)[rank * each : (rank + 1) * each]  # begins anew at the end
    return np.array_split(mine, workers)[worker]
