"""The coordinator: owns the canvases, hands out work, takes results. A plain class, no Ray inside.

What it keeps true:
- every piece of work is with one worker at a time, and its result is taken exactly once;
- `lease` and `commit` may be called again: a lease whose worker died or hangs is handed out anew
  under another id, and whatever comes late under the old id is dropped;
- several images are in flight, so that one image's last patches of a step never leave a worker idle;
- a lease holds patches of one model only, from as many images as it takes to fill it.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from diffgen.sampling.canvas import NonFiniteError
from diffgen.synthesis.painting import Painting, Work
from diffgen.synthesis.plan import Plan
from diffgen.synthesis.shards import Sample

Kind = Literal["mask", "layout", "image", "render", "wait", "over"]


@dataclass(frozen=True)
class Lease:
    """Work for one worker: pieces of one kind. `wait`: ask again soon; `over`: there will be no more."""

    id: int
    kind: Kind
    items: tuple[Work, ...] = ()


@dataclass
class Held:
    """A lease as the coordinator remembers it."""

    worker: str
    since: float
    pieces: list[tuple[int, int]]
    """(image index, number of the piece in it)."""


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
        pieces: list[tuple[int, int]] = []
        items: list[Work] = []
        for painting in single[:1] or [painting for painting in ripe if painting.stage == kind]:
            while painting.open and len(items) < budget:
                number, item = painting.next()
                pieces.append((painting.index, number))
                items.append(item)
        self.leases += 1
        self.held[self.leases] = Held(worker, time.monotonic(), pieces)
        return Lease(self.leases, kind, tuple(items))

    def commit(self, lease: int, results: Sequence[Any]) -> bool:
        """Results of a lease, in the order of its items; false if it came too late and was dropped."""
        held = self.held.pop(lease, None)
        if held is None:
            return False
        assert len(results) == len(held.pieces), "a result for every piece"
        for (index, number), result in zip(held.pieces, results, strict=True):
            if (painting := self.paintings.get(index)) is not None:
                self._give(painting, number, result)
        return True

    def _give(self, painting: Painting, number: int, result: Any) -> None:
        self.patches += painting.stage in {"mask", "image"}
        before = sum(painting.forwards.values())
        try:
            painting.give(number, result)
        except NonFiniteError as error:
            self.failed[painting.index] = f"image {painting.index}, {painting.stage} model, {error}"
            self._close(painting)
            return
        self.forwards += sum(painting.forwards.values()) - before
        if painting.sample is not None:
            self.finished[painting.index] = painting.sample
            self._close(painting)

    def _close(self, painting: Painting) -> None:
        del self.paintings[painting.index]
        self.images += 1

    def release(self, worker: str) -> int:
        """Hand out anew what a lost worker held; the number of its leases."""
        return self._revoke([id for id, held in self.held.items() if held.worker == worker])

    def expire(self) -> int:
        """Hand out anew what is held for longer than the timeout; the driver calls, an actor has no timer."""
        limit = time.monotonic() - self.timeout_s
        return self._revoke([id for id, held in self.held.items() if held.since < limit])

    def _revoke(self, leases: list[int]) -> int:
        for lease in leases:
            for index, number in self.held.pop(lease).pieces:
                if index in self.paintings:
                    self.paintings[index].put_back(number)
        return len(leases)

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
