"""The coordinator: owns the canvases, hands out work, takes results. A plain class, no Ray inside.

Invariants:
- the result of a piece of work is taken exactly once, from whoever brings it first: samplers are pure
  functions, so all results of a piece are equal;
- `lease` and `commit` may be called again: what a dead or hanging worker held is handed out anew, and
  whatever comes late or twice is dropped if it is no longer wanted;
- images are begun when there is too little work for all workers, so that one image's last patches of a
  step leave nobody idle, and that no more canvases are held than it takes;
- the store is asked at the start which snapshots there are; they are read, written and removed beside the
  work (`background`): a slow store keeps nobody waiting.

Which patches a lease holds is decided by `schedule.choose`.
"""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from diffgen.errors import one_line, warn
from diffgen.sampling.canvas import CanvasState, NonFiniteError, Patch
from diffgen.storage import Folder
from diffgen.synthesis import snapshots
from diffgen.synthesis.image_job import ImageJob
from diffgen.synthesis.leases import Lease, LeaseItem, OpenLease, PatchBatch, Result, Status
from diffgen.synthesis.manifest import Sample
from diffgen.synthesis.plan import Plan
from diffgen.synthesis.schedule import AHEAD, choose

NAMES = {"mask": "mask model", "label_map": "label map", "image": "image model", "render": "autoencoder"}
FIRST = 5  # a worker's first lease has so many times longer: it compiles, and its device wakes up


class Coordinator:
    """Paints the images that these samples are of, in order, at most `in_flight` at a time.

    An image that takes longer than `snapshot_s` is saved under `url` between two steps, and a new
    coordinator resumes from there.
    """

    def __init__(
        self,
        plan: Plan,
        samples: Iterable[int],
        in_flight: int,
        timeout_s: float,
        url: str | None = None,
        snapshot_s: float = float("inf"),
        background: bool = False,
    ) -> None:
        self.plan, self.timeout_s, self.in_flight = plan, timeout_s, in_flight
        self.store, self.snapshot_s = None if url is None else Folder(url), snapshot_s
        self.thread = ThreadPoolExecutor(1) if background else None
        self.saving: Future[None] | None = None
        self.saved: set[int] = set() if self.store is None else snapshots.saved(self.store)
        self.tiles: dict[int, list[int]] = {}
        for sample in samples:
            image, tile = plan.where(sample)
            self.tiles.setdefault(image, []).append(tile)
        self.todo = sorted(self.tiles, reverse=True)
        self.jobs: dict[int, ImageJob] = {}  # in order of their index
        self.reading: dict[int, Future[CanvasState | None]] = {}
        """Images whose snapshots are on their way; they count as begun."""
        self.finished: dict[int, Sample] = {}
        self.failed: dict[int, str] = {}  # samples
        self.held: dict[int, OpenLease] = {}
        self.revoked: dict[int, OpenLease] = {}  # may still be answered
        self.busy: dict[str, float] = {}
        self.workers: set[str] = set()
        self.behind = False
        """Whether the writer is: then nothing more is rendered, as finished samples are large."""
        self.leases = self.images = self.patches = self.forwards = self.rows = self.slots = 0

    @property
    def over(self) -> bool:
        return not (self.todo or self.reading or self.jobs)

    def lease(self, worker: str, budget: int) -> Lease:
        """Patches for about `budget` forwards, or one label map or region; to be answered by `commit`."""
        self.workers.add(worker)
        self._admit(AHEAD * budget * len(self.workers))
        ripe = [job for job in self.jobs.values() if job.open and not (self.behind and job.stage == "render")]
        if not ripe:
            return Lease(0, "over" if self.over else "wait")
        single = next((job for job in ripe if job.stage in {"label_map", "render"}), None)
        chosen = [(single.index, next(iter(single.open)))] if single else self._choose(budget)
        if not chosen:
            return Lease(0, "wait")
        stage = self.jobs[chosen[0][0]].stage
        work, pieces = [], []
        for image, number in chosen:
            job = self.jobs[image]
            work.append(piece := job.next(number))
            owned = int(piece.owned.sum()) if isinstance(piece, Patch) else 0
            pieces.append(LeaseItem(image, job.turn, number, owned))
        self.leases += 1
        self.held[self.leases] = OpenLease(worker, time.monotonic(), pieces)
        first, patches = work[0], [piece for piece in work if isinstance(piece, Patch)]
        return Lease(self.leases, stage, PatchBatch.of(patches) if isinstance(first, Patch) else first)

    def _admit(self, wanted: int) -> None:
        """Begin images until there are so many forwards to hand out."""
        for index in [index for index, snapshot in self.reading.items() if snapshot.done()]:
            self._begin(index, self.reading.pop(index).result())
        rows = sum(sum(job.open.values()) for job in self.jobs.values())
        while (rows < wanted or not self.jobs) and (job := self._begin_another()):
            rows += sum(job.open.values())

    def _begin_another(self) -> ImageJob | None:
        while self.todo and self._room > 0:
            index = self.todo.pop()
            if self.store is None or index not in self.saved:
                return self._begin(index)
            if self.thread is None:
                return self._begin(index, snapshots.read(self.store, index))
            self.reading[index] = self.thread.submit(snapshots.read, self.store, index)
        return None

    def _begin(self, index: int, snapshot: CanvasState | None = None) -> ImageJob:
        begin = partial(ImageJob, self.plan, index, self.tiles[index])
        job = self.jobs[index] = snapshots.resume(index, snapshot, begin)
        self.jobs = dict(sorted(self.jobs.items()))
        return job

    @property
    def _room(self) -> int:
        """Images that may be begun."""
        return self.in_flight - len(self.jobs) - len(self.reading)

    def _choose(self, budget: int) -> list[tuple[int, int]]:
        """(image, patch) of the next lease; images are begun where none can be filled well. Empty: wait."""
        while True:
            candidates = [
                patches
                for job in self.jobs.values()
                if job.stage in {"mask", "image"}
                for patches in job.open_patches()
            ]
            held = {image for lease in self.held.values() for image in lease.images}
            busy = {image for image in held & self.jobs.keys() if self.jobs[image].stage != "render"}
            chosen = choose(candidates, budget, len(self.workers), len(self.todo), self._room, busy)
            if chosen or not self._begin_another():
                return chosen

    def commit(self, lease: int, work: Result) -> bool:
        """The answer to a lease; false if nothing of it was wanted any more."""
        held = self.held.pop(lease, None) or self.revoked.pop(lease, None)
        if held is None:
            return False
        for other in self.held.values():
            if other.worker == held.worker:  # fetched ahead: its clock starts now
                other.since = time.monotonic()
        self.busy[held.worker] = self.busy.get(held.worker, 0.0) + work.seconds
        self.rows, self.slots = self.rows + work.rows, self.slots + work.slots
        results = [work.result]
        if isinstance(work.result, np.ndarray):
            ends = np.cumsum([piece.owned for piece in held.pieces])
            assert work.result.shape[1] == ends[-1], "an estimate for every owned pixel"
            results = np.split(work.result, ends[:-1], axis=1)
        taken = [self._give(piece, result) for piece, result in zip(held.pieces, results, strict=True)]
        return any(taken)

    def _give(self, piece: LeaseItem, result: Any) -> bool:
        job = self.jobs.get(piece.image)
        if job is None:
            return False
        stage, before, turn = job.stage, sum(job.forwards.values()), job.turn
        try:
            if not job.give(piece.turn, piece.number, result):
                return False
        except NonFiniteError as error:
            self._give_up(job, piece.number, f"image {job.index}, {NAMES[stage]}, {error}")
            return True
        self.patches += stage in {"mask", "image"}
        self.forwards += sum(job.forwards.values()) - before
        for sample in job.samples:
            self.finished[sample.index] = sample
        job.samples = []
        if job.stage == "done":
            self._close(job)
        elif job.turn != turn:
            self._save(job)
        return True

    def _save(self, job: ImageJob) -> None:
        """Snapshot an image that has been long in the works since the last one."""
        late = time.monotonic() - job.saved > self.snapshot_s
        if self.store is None or not late or job.stage != "image":
            return
        if self.saving is not None and not self.saving.done():
            return  # one at a time: the store is slow, and a later step is as good
        try:
            snapshot = snapshots.pack(job)
        except (ValueError, RuntimeError) as error:  # the work itself is not in danger
            warn(f"image {job.index} could not be snapshot ({one_line(error)})")
        else:
            self.saved.add(job.index)
            self.saving = self._beside(snapshots.save, self.store, job.index, snapshot)
        job.saved = time.monotonic()

    def _beside(self, function: Callable[..., None], store: Folder, image: int, *more: bytes) -> Any:
        """Call it after those before it, while leases are served; what it cannot do is no more than told."""

        def call() -> None:
            try:
                function(store, image, *more)
            except (OSError, RuntimeError) as error:
                warn(f"snapshot of image {image}: {one_line(error)}")

        return call() if self.thread is None else self.thread.submit(call)

    def settle(self) -> None:
        """Wait until no snapshot is written or removed any more."""
        if self.thread is not None:
            self.thread.submit(lambda: None).result()

    def _give_up(self, job: ImageJob, number: int, reason: str) -> None:
        """An image, or of one that is rendered this region's tiles: the others do not depend on them."""
        rendered = job.stage == "render"
        tiles = job.regions[number].tiles if rendered else job.tiles
        first = self.plan.first_sample(job.index)
        self.failed |= {first + tile: reason for tile in tiles}
        if not (rendered and job.wanted):
            self._close(job)

    def _close(self, job: ImageJob) -> None:
        del self.jobs[job.index]
        self.images += 1

    def wait_for_writer(self, behind: bool) -> None:
        """Render nothing more, or go on with it."""
        self.behind = behind

    def release(self, worker: str) -> None:
        """Hand out anew what a lost worker held."""
        self.workers.discard(worker)
        self._revoke([id for id, held in self.held.items() if held.worker == worker])

    def expire(self) -> list[str]:
        """Hand out anew what is held for longer than the timeout; the workers that hang.

        The driver calls: a synchronous actor has no timer.
        """
        now = time.monotonic()
        late = [
            id
            for id, held in self.held.items()
            if now - held.since > self.timeout_s * (1 if held.worker in self.busy else FIRST)
        ]
        workers = sorted({self.held[id].worker for id in late})
        self._revoke(late)
        return workers

    def _revoke(self, leases: list[int]) -> None:
        for lease in leases:
            held = self.revoked[lease] = self.held.pop(lease)
            for piece in held.pieces:
                if piece.image in self.jobs:
                    self.jobs[piece.image].put_back(piece.turn, piece.number)

    def take(self, samples: Iterable[int]) -> list[Sample]:
        """Those of these samples that are finished here; they stay until `drop`, as a writer may be lost."""
        return [self.finished[index] for index in samples if index in self.finished]

    def drop(self, samples: Iterable[int]) -> None:
        """Forget samples that are in a committed shard."""
        images = {self.plan.where(index)[0] for index in samples if self.finished.pop(index, None)}
        images -= {self.plan.where(index)[0] for index in self.finished}  # tiles of a shard to come
        if self.store is not None:
            for image in (images & self.saved) - self.jobs.keys():
                self._beside(snapshots.forget, self.store, image)
                self.saved.discard(image)

    def status(self) -> Status:
        progress = self.images + sum(job.fraction for job in self.jobs.values())
        return Status(
            self.images,
            progress,
            self.patches,
            self.forwards,
            tuple(self.finished),
            dict(self.failed),
            self.over,
            self.rows,
            self.slots,
            dict(self.busy),
        )
