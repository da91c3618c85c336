"""What travels between coordinator, samplers and driver: leases, the work they ask for, and figures.

And what the coordinator remembers of a lease.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffgen.sampling.canvas import GlobalCondition, Patch
from diffgen.synthesis.image_job import LabelMapJob, Stage
from diffgen.synthesis.render import RenderJob


@dataclass(frozen=True)
class PatchBatch:
    """Patches of one shape, stacked: a few large arrays travel faster than many small ones."""

    latents: NDArray[np.float32]
    timesteps: NDArray[np.int64]
    labels: NDArray[np.uint8]
    owned: NDArray[np.bool_]
    whole: tuple[GlobalCondition | None, ...]
    log_snr: tuple[float, ...]

    @classmethod
    def of(cls, patches: Sequence[Patch]) -> "PatchBatch":
        return cls(
            np.stack([patch.latents for patch in patches]),
            np.array([patch.timestep for patch in patches]),
            np.stack([patch.labels for patch in patches]),
            np.stack([patch.owned for patch in patches]),
            tuple(patch.whole for patch in patches),
            tuple(patch.log_snr for patch in patches),
        )

    def each(self) -> list[Patch]:
        columns = (self.latents, self.timesteps, self.labels, self.owned, self.whole, self.log_snr)
        return [Patch(z, int(t), *rest) for z, t, *rest in zip(*columns, strict=True)]


@dataclass(frozen=True)
class Lease:
    """Work of one stage for one worker. `wait`: ask again soon; `over`: there will be no more."""

    id: int
    kind: Stage | Literal["wait", "over"]
    work: PatchBatch | LabelMapJob | RenderJob | None = None


class LeaseItem(NamedTuple):
    """A piece of work by its image, turn and number in that, and pixels owned (of a patch)."""

    image: int
    turn: int
    number: int
    owned: int


@dataclass
class OpenLease:
    """A lease as the coordinator remembers it."""

    worker: str
    since: float
    pieces: list[LeaseItem]

    @cached_property
    def images(self) -> set[int]:
        return {piece.image for piece in self.pieces}


@dataclass(frozen=True)
class Result:
    """What a worker made of a lease: the estimates of all its patches (C, owned pixels) one after the
    other, or the result of a job; and what it took."""

    result: Any
    rows: int = 0
    """Forwards that were asked for, wide ones as several."""
    slots: int = 0
    """The same with those that padded the micro-batches."""
    seconds: float = 0.0


@dataclass(frozen=True)
class Status:
    """Figures for the driver."""

    images: int = 0
    """Finished or given up."""
    progress: float = 0.0
    """The same with the parts of those in the works."""
    patches: int = 0
    forwards: int = 0
    ready: tuple[int, ...] = ()
    """Finished samples that nobody has taken yet."""
    failed: dict[int, str] = field(default_factory=dict)
    """Samples that are given up, and why."""
    over: bool = False
    rows: int = 0
    slots: int = 0
    busy: dict[str, float] = field(default_factory=dict)
    """Seconds that each worker computed."""
    answer_s: float = 0.0
    """On Ray: 99 % of what the coordinators were asked was answered within so many seconds."""

    def __add__(self, other: "Status") -> "Status":
        """Figures of two coordinators together."""
        workers = self.busy | other.busy
        return Status(
            self.images + other.images,
            self.progress + other.progress,
            self.patches + other.patches,
            self.forwards + other.forwards,
            self.ready + other.ready,
            self.failed | other.failed,
            self.over and other.over,
            self.rows + other.rows,
            self.slots + other.slots,
            {worker: self.busy.get(worker, 0.0) + other.busy.get(worker, 0.0) for worker in workers},
            max(self.answer_s, other.answer_s),
        )
