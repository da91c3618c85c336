"""Discrete-event simulation of coordinators and samplers: how far does a fleet scale?

    python benchmarks/throughput.py --only scaling

What is modelled: the protocol of `diffgen.synthesis.pool` (a sampler asks for its next lease before it
computes the present one, and begins it when that is done), leases by the coordinator's own rule (fair
share, whole micro-batches, what is left waits where more is to come), at most `in_flight` images a
coordinator, images and samplers split over the coordinators as the pool does, samplers that go on to the
next coordinator when theirs is over.

What is assumed: a coordinator handles one call at a time and costs the same for each patch and each latent
pixel stepped; samplers are equally fast and none is lost; messages take half a round trip each, whatever
their size (their bytes are in the coordinator's measured costs); one forward per patch; actors are up.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any, Protocol

import numpy as np

from diffgen.sampling import covers
from diffgen.sampling.seeds import blocks
from diffgen.synthesis.pool import pause


@dataclass(frozen=True)
class Costs:
    """Seconds, as measured or assumed."""

    lease_s: float
    """In the coordinator, a patch handed out."""
    commit_s: float
    """In the coordinator, a patch taken, without the solver."""
    step_s: float
    """In the coordinator, a latent pixel stepped by the solver."""
    call_s: float
    """In the coordinator, a call by itself."""
    round_trip_s: float
    patch_s: float = 1e-3
    """On a sampler, one row of a micro-batch."""
    render_s: float = 0.0
    """On a sampler's device, an image's decoding."""


@dataclass(frozen=True)
class Fleet:
    samplers: int
    samplers_per_coordinator: int = 4
    budget: int = 32
    """Patches per lease."""
    micro_batch: int = 32
    in_flight: int = 32


class Image(Protocol):
    """The open patches of one image, and what their results lead to."""

    held: int
    done: bool

    @property
    def open(self) -> int: ...

    @property
    def left(self) -> int:
        """Patches to come, or steps."""

    def take(self, number: int) -> Any: ...

    def give(self, taken: Any) -> int:
        """Latent pixels that are stepped because of these results."""


class Stepwise:
    """A step ends when all of its patches are there: the canvas of the product. Patches only count."""

    def __init__(self, patches: Sequence[int], pixels: int) -> None:
        self.patches, self.pixels, self.step = patches, pixels, 0
        self.open = self.missing = patches[0]
        self.held, self.done = 0, False

    @property
    def left(self) -> int:
        return len(self.patches) - self.step

    def take(self, number: int) -> int:
        self.open -= number
        self.held += number
        return number

    def give(self, taken: int) -> int:
        self.held -= taken
        self.missing -= taken
        if self.missing:
            return 0
        self.step += 1
        if self.step < len(self.patches):
            self.open = self.missing = self.patches[self.step]
        else:
            self.done = True
        return self.pixels


class Blockwise:
    """A block of the canvas steps when all patches that read it are there, and a patch of the next step is
    open when all blocks that it reads have stepped."""

    def __init__(self, boxes: Sequence[np.ndarray], side: int) -> None:
        grid = blocks(side, side)
        self.sizes = [(r.stop - r.start) * (c.stop - c.start) for r, c in grid]
        height = grid[0][0].stop
        across = -(-side // height)
        self.reads: list[list[list[int]]] = []  # step, patch → blocks
        self.readers: list[list[list[int]]] = []  # step, block → patches
        for step in boxes:
            readers: list[list[int]] = [[] for _ in grid]
            reads = []
            for patch, (y0, x0, y1, x1) in enumerate(step.tolist()):
                rows = range(y0 // height, (y1 - 1) // height + 1)
                columns = range(x0 // height, (x1 - 1) // height + 1)
                reads.append([row * across + column for row in rows for column in columns])
                for block in reads[-1]:
                    readers[block].append(patch)
            self.reads.append(reads)
            self.readers.append(readers)
        self.unread = [[len(patches) for patches in step] for step in self.readers]
        self.needs = [[len(read) for read in step] for step in self.reads]
        self.queue = deque((0, patch) for patch in range(len(self.reads[0])))
        self.left = sum(len(step) for step in boxes)
        self.held, self.done = 0, False

    @property
    def open(self) -> int:
        return len(self.queue)

    def take(self, number: int) -> list[tuple[int, int]]:
        self.held += number
        return [self.queue.popleft() for _ in range(number)]

    def give(self, taken: list[tuple[int, int]]) -> int:
        self.held -= len(taken)
        self.left -= len(taken)
        stepped = 0
        for step, patch in taken:
            for block in self.reads[step][patch]:
                self.unread[step][block] -= 1
                if self.unread[step][block] == 0:
                    stepped += self.sizes[block]
                    self._stepped(step + 1, block)
        self.done = self.left == 0
        return stepped

    def _stepped(self, step: int, block: int) -> None:
        if step == len(self.reads):
            return
        for patch in self.readers[step][block]:
            self.needs[step][patch] -= 1
            if self.needs[step][patch] == 0:
                self.queue.append((step, patch))


@dataclass
class Lease:
    taken: list[tuple[Image, Any]]
    rows: int = 0
    render: Image | None = None


class Coordinator:
    """One server: calls are handled one by one, in the order in which they arrive."""

    def __init__(self, images: Sequence[Image], fleet: Fleet, costs: Costs) -> None:
        self.todo, self.fleet, self.costs = list(reversed(images)), fleet, costs
        self.painted: list[Image] = []
        self.render: deque[Image] = deque()
        self.rendering = 0
        self.workers: set[int] = set()
        self.free_at = self.busy = 0.0

    def serve(self, now: float, seconds: float) -> float:
        """When a call that arrives now and takes so long is answered."""
        self.free_at = max(now, self.free_at) + seconds
        self.busy += seconds
        return self.free_at

    def lease(self, now: float, sampler: int) -> tuple[float, Lease | str]:
        self.workers.add(sampler)
        answer = self._choose()
        rows = answer.rows if isinstance(answer, Lease) else 0
        return self.serve(now, self.costs.call_s + rows * self.costs.lease_s), answer

    def _choose(self) -> Lease | str:
        fleet = self.fleet
        there = sum(image.open for image in self.painted)
        while (
            self.todo
            and len(self.painted) + len(self.render) + self.rendering < fleet.in_flight
            and (there < 2 * fleet.budget * len(self.workers))
        ):
            self.painted.append(self.todo.pop())
            there += self.painted[-1].open
        if self.render:
            self.rendering += 1
            return Lease([], render=self.render.popleft())
        if not there:
            return "wait" if self.todo or self.painted or self.rendering else "over"
        batch = fleet.micro_batch
        target = max(batch, min(fleet.budget, there // len(self.workers)) // batch * batch)
        rows = min(target, there)
        rows -= rows % batch if rows > batch else 0
        if rows % batch and any(image.held and not image.open for image in self.painted):
            return "wait"
        lease, left = Lease([], rows), rows
        if not self.todo and there < 4 * fleet.budget * len(
            self.workers
        ):  # the least advanced first, so that the last images end together
            self.painted.sort(key=lambda image: image.left, reverse=True)
        for image in self.painted:
            if take := min(left, image.open):
                lease.taken.append((image, image.take(take)))
                left -= take
            if not left:
                break
        return lease

    def commit(self, now: float, lease: Lease) -> float:
        stepped = 0
        for image, taken in lease.taken:
            stepped += image.give(taken)
            if image.done:
                self.painted.remove(image)
                if self.costs.render_s:
                    self.render.append(image)
        self.rendering -= lease.render is not None
        costs = self.costs
        return self.serve(now, costs.call_s + lease.rows * costs.commit_s + stepped * costs.step_s)


@dataclass
class Sampler:
    order: list[int]
    """Coordinators that it has yet to work for, the present one first."""
    present: Lease | None = None
    next: Lease | str | None = None
    idle: int = 0


@dataclass(frozen=True)
class Outcome:
    seconds: float
    patches: int
    efficiency: float
    """Seconds of forwards that were asked for, over seconds that all samplers had."""
    coordinator_busy: float
    """Share of the time, of the busiest one."""


def split(images: Sequence[Image], parts: int) -> list[Sequence[Image]]:
    ends = [len(images) * k // parts for k in range(parts + 1)]
    return [images[start:end] for start, end in pairwise(ends) if end > start]


def simulate(images: Sequence[Image], patches: int, fleet: Fleet, costs: Costs) -> Outcome:
    """Play a run of `patches` patches in all, from the first ask to the last commit."""
    coordinators = [
        Coordinator(part, fleet, costs)
        for part in split(images, -(-fleet.samplers // fleet.samplers_per_coordinator))
    ]
    number = len(coordinators)
    samplers = [Sampler([(k + j) % number for j in range(number)]) for k in range(fleet.samplers)]
    travel, order = costs.round_trip_s / 2, count()
    events: list[tuple[float, int, str, int, Any]] = []

    def at(time: float, kind: str, sampler: int, what: Any = None) -> None:
        heapq.heappush(events, (time, next(order), kind, sampler, what))

    def go_on(now: float, k: int) -> None:
        """The lease that was fetched, if it is there and nothing is in its way."""
        sampler = samplers[k]
        lease = sampler.next
        if lease is None or sampler.present is not None:
            return
        sampler.next = None
        if lease == "over":
            sampler.order.pop(0)
            sampler.idle = 0
            if sampler.order:
                at(now + travel, "ask", k)
        elif lease == "wait":
            at(now + travel + pause(sampler.idle), "ask", k)
            sampler.idle += 1
        else:
            assert isinstance(lease, Lease)
            sampler.present, sampler.idle = lease, 0
            at(now + travel, "ask", k)
            slots = -(-lease.rows // fleet.micro_batch) * fleet.micro_batch
            seconds = costs.render_s if lease.render else slots * costs.patch_s
            at(now + seconds, "computed", k)

    for k in range(fleet.samplers):
        at(travel, "ask", k)
    while events:
        now, _, kind, k, what = heapq.heappop(events)
        sampler = samplers[k]
        if kind == "ask":
            answered, answer = coordinators[sampler.order[0]].lease(now, k)
            at(answered + travel, "lease", k, answer)
        elif kind == "lease":
            sampler.next = what
            go_on(now, k)
        elif kind == "computed":
            at(now + travel, "commit", k, sampler.present)
            sampler.present = None
            go_on(now, k)
        else:
            coordinators[sampler.order[0]].commit(now, what)
    end = max(c.free_at for c in coordinators)
    efficiency = patches * costs.patch_s / (fleet.samplers * end)
    return Outcome(end, patches, efficiency, max(c.busy for c in coordinators) / end)


def many_images(number: int, side: int, patch: int, steps: int, fleet: Fleet, costs: Costs) -> Outcome:
    """So many images of `side` latent pixels, patches of the jittered rule at its default overlap."""
    rng = np.random.default_rng(0)
    sizes = [len(covers.jittered(side, side, patch, rng)) for _ in range(256)]
    drawn = rng.choice(sizes, size=(number, steps)).tolist()
    images: list[Image] = [Stepwise(patches, side * side) for patches in drawn]
    return simulate(images, sum(map(sum, drawn)), fleet, costs)


def one_image(side: int, patch: int, steps: int, by_blocks: bool, fleet: Fleet, costs: Costs) -> Outcome:
    """One image of `side` latent pixels; its one coordinator feeds all samplers."""
    rng = np.random.default_rng(0)
    boxes = [covers.jittered(side, side, patch, rng).boxes for _ in range(steps)]
    sizes = [len(step) for step in boxes]
    image: Image = Blockwise(boxes, side) if by_blocks else Stepwise(sizes, side * side)
    return simulate([image], sum(sizes), fleet, costs)
