"""The coordinator: owns the canvases, hands out work, takes results. A plain class, no Ray inside.

What it keeps true:
- the result of a piece of work is taken exactly once, from whoever brings it first: samplers are pure
  functions, so all results of a piece are equal;
- `lease` and `commit` may be called again: what a dead or hanging worker held is handed out anew, and
  whatever comes late or twice is dropped if it is no longer wanted;
- several images are in flight, so that one image's last patches of a step never leave a worker idle;
- a lease holds patches of one model only, from as many images as it takes to fill it.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from diffgen.sampling.canvas import NonFiniteError
from diffgen.synthesis.painting import Painting, Work
from diffgen.synthesis.plan import Plan
from diffgen.synthesis.shards import Sample

NAMES = {"mask": "mask model", "layout": "layout", "image": "image model", "render": "autoencoder"}
Kind = Literal["mask", "layout", "image", "render", "wait", "over"]


@dataclass(frozen=True)
class Lease:
    """Work for one worker: pieces of one kind. `wait`: ask again soon; `over`: there will be no more."""

    id: int
    kind: Kind
    items: tuple[Work, ...] = ()


class Piece(NamedTuple):
    """A piece of work by its image, and turn and number in that."""

    image: int
    turn: int
    number: int


@dataclass
class Held:
    """A lease as the coordinator remembers it."""

    worker: str
    since: float
    pieces: list[Piece]


@dataclass(frozen=True)
class Status:
    """Figures for the driver."""

    images: int
    """Finished or given up."""
    patches: int
    forwards: int
    ready: tuple[int, ...]
    """Finished images that nobody has taken yet."""
    failed: dict[int, str] = field(default_factory=dict)
    over: bool = False


class Coordinator:
    """Paints the images with these indices, in order, `in_flight` at a time."""

    def __init__(self, plan: Plan, indices: Iterable[int], in_flight: int, timeout_s: float) -> None:
        self.plan, self.timeout_s, self.in_flight = plan, timeout_s, in_flight
        self.todo = sorted(indices, reverse=True)
        self.paintings: dict[int, Painting] = {}  # in order of their index
        self.finished: dict[int, Sample] = {}
        self.failed: dict[int, str] = {}
        self.held: dict[int, Held] = {}
        self.revoked: dict[int, Held] = {}  # may still be answered
        self.leases = self.images = self.patches = self.forwards = 0

    @property
    def over(self) -> bool:
        return not self.todo and not self.paintings

    def lease(self, worker: str, budget: int) -> Lease:
        """Up to `budget` patches, or one image to lay out or to render; to be answered by `commit`."""
        while self.todo and len(self.paintings) < self.in_flight:
            index = self.todo.pop()
            self.paintings[index] = Painting(self.plan, index)
        ripe = [painting for painting in self.paintings.values() if painting.open]
        if not ripe:
            return Lease(0, "over" if self.over else "wait")
        single = [painting for painting in ripe if painting.stage in {"layout", "render"}]
        kind = (single or ripe)[0].stage
        assert kind != "done"
        pieces: list[Piece] = []
        items: list[Work] = []
        alike = [p for p in ripe if p.stage == kind and p.shape == ripe[0].shape]
        for painting in single[:1] or alike:
            while painting.open and len(items) < budget:
                number, item = painting.next()
                pieces.append(Piece(painting.index, painting.turn, number))
                items.append(item)
        self.leases += 1
        self.held[self.leases] = Held(worker, time.monotonic(), pieces)
        return Lease(self.leases, kind, tuple(items))

    def commit(self, lease: int, results: Sequence[Any]) -> bool:
        """Results of a lease, in the order of its items; false if none of them was wanted any more."""
        held = self.held.pop(lease, None) or self.revoked.pop(lease, None)
        if held is None:
            return False
        assert len(results) == len(held.pieces), "a result for every piece"
        for other in self.held.values():
            if other.worker == held.worker:  # fetched ahead: its clock starts now
                other.since = time.monotonic()
        taken = [self._give(*piece, result) for piece, result in zip(held.pieces, results, strict=True)]
        return any(taken)

    def _give(self, index: int, turn: int, number: int, result: Any) -> bool:
        painting = self.paintings.get(index)
        if painting is None:
            return False
        stage, before = painting.stage, sum(painting.forwards.values())
        try:
            if not painting.give(turn, number, result):
                return False
        except NonFiniteError as error:
            self.failed[index] = f"image {index}, {NAMES[stage]}, {error}"
            self._close(painting)
            return True
        self.patches += stage in {"mask", "image"}
        self.forwards += sum(painting.forwards.values()) - before
        if painting.sample is not None:
            self.finished[painting.index] = painting.sample
            self._close(painting)
        return True

    def _close(self, painting: Painting) -> None:
        del self.paintings[painting.index]
        self.images += 1

    def release(self, worker: str) -> None:
        """Hand out anew what a lost worker held."""
        self._revoke([id for id, held in self.held.items() if held.worker == worker])

    def expire(self) -> list[str]:
        """Hand out anew what is held for longer than the timeout; the workers that hang.

        The driver calls: a synchronous actor has no timer.
        """
        limit = time.monotonic() - self.timeout_s
        late = [id for id, held in self.held.items() if held.since < limit]
        workers = sorted({self.held[id].worker for id in late})
        self._revoke(late)
        return workers

    def _revoke(self, leases: list[int]) -> None:
        for lease in leases:
            held = self.revoked[lease] = self.held.pop(lease)
            for index, turn, number in reversed(held.pieces):
                if index in self.paintings:
                    self.paintings[index].put_back(turn, number)

    def take(self, indices: Iterable[int]) -> list[Sample]:
        """Finished samples; they stay here until `drop`, so that a lost writer can ask again."""
        return [self.finished[index] for index in indices]

    def drop(self, indices: Iterable[int]) -> None:
        """Forget samples that are in a committed shard."""
        for index in indices:
            self.finished.pop(index, None)

    def status(self) -> Status:
        ready = tuple(self.finished)
        return Status(self.images, self.patches, self.forwards, ready, dict(self.failed), self.over)
