"""Coordinators, sampler pool and shard writer as Ray actors, and the loop that watches them.

Samplers pull: each asks for its next lease while it computes the present one. A lost sampler is
replaced and what it held is handed out anew; when coordinator or writer is lost, what the folder
lacks is looked up again and painted anew, with equal bytes.
"""

import contextlib
import re
import tempfile
import time
from collections import deque
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.metrics import Gauge

from diffgen import config
from diffgen.cluster import available, beside_driver, check_versions, connect, networks_on, on_gpus
from diffgen.errors import UserError, one_line
from diffgen.models.bundle import unpack
from diffgen.synthesis.backlog import Backlog, Report, rescan
from diffgen.synthesis.coordinator import Coordinator
from diffgen.synthesis.leases import Lease, Result, Status
from diffgen.synthesis.sampler import Sampler
from diffgen.synthesis.shards import ShardWriter

WAIT_S = 0.02, 0.2  # between two asks of an idle sampler: at first, and at most
POLL_S = 0.2
LOOK_S = 5.0  # between two looks for leases that expired and nodes that came or went
GPUS_FED = 2  # by one coordinator, which serves 3,000 paper-size patches per second; each asks for 1,000
CPUS_FED = 32
ANSWERS = 10_000  # of the coordinators, of which the times are kept
WRITTEN_AT_ONCE = 8
"""Shards that the writer was given and has not committed; others wait, and rendering with them."""
MAX_LOSSES = 5  # of actors, with nothing achieved in between: then it is no accident


class PooledSampler:
    """A sampler that pulls leases from coordinators until there are none (an actor)."""

    def __init__(self, packed: dict[str, bytes], sampling: config.Sampling, gpu: bool) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.sampler = Sampler(unpack(packed, Path(folder)), sampling, gpu)
        self.encoder = ThreadPoolExecutor(1)  # PNGs are made while the device goes on
        self.encoding: Future[None] | None = None

    def pull(self, name: str, coordinators: list[Any], budget: int) -> None:
        """Work for the first coordinator until it says that all is over, then help the next."""
        for coordinator in coordinators:
            asked, answered, idle = coordinator.lease.remote(name, budget), None, 0
            while (lease := ray.get(asked)).kind != "over":
                if lease.kind == "wait":
                    self._check(answered)
                    answered = None
                    time.sleep(pause(idle))
                    asked, idle = coordinator.lease.remote(name, budget), idle + 1
                    continue
                asked, idle = coordinator.lease.remote(name, budget), 0
                result = self.sampler.compute(lease)
                if lease.kind == "render":
                    if self.encoding is not None:
                        self.encoding.result()  # one at a time: pictures are large
                    self.encoding = self.encoder.submit(self._encode, coordinator, lease, result)
                    continue
                if answered is not None:
                    ray.get(answered)
                answered = coordinator.commit.remote(lease.id, result)
            self._check(answered)

    def _check(self, answered: Any) -> None:
        """Raise the error of an answer or an encoding: it ends the run instead of losing the work."""
        if answered is not None:
            ray.get(answered)
        if self.encoding is not None and self.encoding.done():
            self.encoding.result()

    def _encode(self, coordinator: Any, lease: Lease, result: Result) -> None:
        ray.get(coordinator.commit.remote(lease.id, self.sampler.finish(lease, result)))


def pause(idle: int) -> float:
    """Seconds before a sampler asks again that was told to wait so many times."""
    return min(WAIT_S[0] * 1.5 ** min(idle, 10), WAIT_S[1]) if idle else 0.0


def run_on_ray(backlog: Backlog, report: Report) -> Status:
    """Make and write what the backlog lacks, on the cluster; the final figures.

    Raises `UserError` where actors are lost again and again with no shard committed in between.
    """
    connect()
    check_versions(on_gpus(backlog.settings.gpu))
    losses, left, total = 0, len(backlog.indices), len(backlog.images)
    before = Status(over=True)  # figures of the attempts before
    while backlog.indices:
        pool = Pool(backlog)

        def report_all(status: Status, before: Status = before) -> None:
            report(before + status)

        try:
            return before + pool.run(report_all)
        except RayActorError as error:
            pool.close()  # one writer a folder at a time
            backlog = rescan(backlog)
            images = total - len(backlog.images)
            spent = before + pool.status
            before = replace(spent, images=images, progress=images, ready=(), failed={}, over=True)
            losses = losses + 1 if len(backlog.indices) == left else 0
            left = len(backlog.indices)
            if losses > MAX_LOSSES:
                raise UserError(f"coordinator or writer is lost again and again: {cause(error)}") from error
        finally:
            pool.close()
    return before  # lost when all was written


def cause(error: RayActorError) -> str:
    """Why an actor was lost, and on which node: Ray's message ends with the error, after where and how."""
    said, node = str(error).strip(), re.search(r"\bip=([\w.:]+)", str(error))
    return one_line(ValueError(said.rpartition("\n")[2]))[:300] + (f" (on {node[1]})" if node else "")


def within(seconds: Collection[float], share: float = 0.99) -> float:
    """The time within which so many of all were over."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def kind(gpu: bool | None) -> str:
    """What samplers work on: `cpu`, or the models of the cluster's GPUs, such as `H100` or `A100+L4`."""
    connect()
    if not on_gpus(gpu):
        return "cpu"
    prefix = "accelerator_type:"
    models = sorted(k.removeprefix(prefix) for k in ray.cluster_resources() if k.startswith(prefix))
    return "+".join(models) or "GPU"


class Pool:
    """The actors of one attempt."""

    def __init__(self, backlog: Backlog) -> None:
        self.backlog = backlog
        self.packed = ray.put(backlog.packed)  # travels to each node once
        sampling, settings = backlog.plan.sampling, backlog.settings
        self.gpus = on_gpus(settings.gpu)
        self.count = self._wanted()
        # A local folder is the driver's own, and the node of any other may go.
        pinned: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": beside_driver()}
        plan = ray.put(backlog.plan)  # given label maps are in it
        self.coordinators = [
            ray.remote(**pinned)(Coordinator).remote(
                plan, samples, *backlog.coordinator_settings, background=True
            )
            for samples in backlog.split(-(-self.count // (GPUS_FED if self.gpus else CPUS_FED)))
        ]
        self.writer = ray.remote(**pinned)(ShardWriter).remote(
            backlog.out, backlog.plan.run, backlog.per_shard
        )
        threads = min(sampling.threads, available("CPU"))
        self.sampler = networks_on(threads, self.gpus)(PooledSampler)
        self.pulling: dict[Any, tuple[str, Any]] = {}
        self.writing: dict[Any, int] = {}
        self.begun: set[int] = set()
        self.behind = False
        self.gauges = Gauges()
        self.status = Status()
        self.waits: deque[float] = deque(maxlen=ANSWERS)
        self.started = self.losses = self.counted = 0
        self.progress_at_loss = 0.0

    def _wanted(self) -> int:
        """Samplers that there should be now; `auto` follows the cluster as it grows and shrinks."""
        settings, threads = self.backlog.settings, self.backlog.plan.sampling.threads
        if settings.samplers != "auto":
            return settings.samplers
        # One at least: where all nodes are gone, it is the actor without a place that an autoscaler sees.
        return max(1, available("GPU") if self.gpus else available("CPU") // threads)

    def run(self, report: Report) -> Status:
        looked, over = -LOOK_S, False
        while True:
            if time.monotonic() - looked > LOOK_S:
                looked = time.monotonic()
                for late in self._all("expire"):
                    self._replace(late)
                for _ in range(0 if over else self._wanted() - len(self.pulling)):
                    self._start()
            if not (self.pulling or self.writing):  # no device is left: one may come
                time.sleep(POLL_S)
            done, _ = ray.wait([*self.pulling, *self.writing], timeout=POLL_S)
            for reference in done:
                self._written(reference) if reference in self.writing else self._stopped(reference)
            asked = time.monotonic()
            status = self._status()
            self.waits.append(time.monotonic() - asked)
            status = self.status = replace(status, answer_s=within(self.waits))
            self.gauges.show(status)
            report(status)
            over = status.over
            ready = self.backlog.ready_shards(status, self.begun)
            room = WRITTEN_AT_ONCE - len(self.writing)
            if self.behind != (len(ready) > room):
                self.behind = not self.behind
                self._all("wait_for_writer", self.behind)
            for k in ready[:room]:
                samples = [c.take.remote(self.backlog.missing[k]) for c in self.coordinators]
                failed = self.backlog.failed(k, status)
                self.writing[self.writer.complete.remote(k, self.backlog.total, *samples, failed=failed)] = k
                self.begun.add(k)
            if status.over and not self.writing:
                self._all("settle")
                return status

    def _all(self, method: str, *arguments: Any) -> list[Any]:
        """What each coordinator answers."""
        return ray.get([getattr(c, method).remote(*arguments) for c in self.coordinators])

    def _status(self) -> Status:
        first, *others = self._all("status")
        return sum(others, start=first)

    def close(self) -> None:
        """Kill the actors, and wait for the writer's end."""
        for actor in (*self.coordinators, self.writer, *(actor for _, actor in self.pulling.values())):
            ray.kill(actor)
        with contextlib.suppress(RayActorError):
            ray.get(self.writer.__ray_ready__.remote())

    def _replace(self, names: Collection[str]) -> None:
        """Kill samplers that hang; `_stopped` starts others."""
        for name, actor in self.pulling.values():
            if name in names:
                ray.kill(actor)

    def _start(self) -> None:
        turn = self.started % len(self.coordinators)
        self.started += 1
        name = f"sampler-{self.started}"
        order = [*self.coordinators[turn:], *self.coordinators[:turn]]
        actor = self.sampler.remote(self.packed, self.backlog.plan.sampling, self.gpus)
        self.pulling[actor.pull.remote(name, order, self.backlog.settings.lease)] = name, actor

    def _written(self, reference: Any) -> None:
        ray.get(reference)
        self._all("drop", self.backlog.missing[self.writing.pop(reference)])

    def _stopped(self, reference: Any) -> None:
        """A sampler has ended: because all is over, or because it was lost."""
        name, _ = self.pulling.pop(reference)
        try:
            ray.get(reference)
        except RayActorError as error:
            self._all("release", name)
            if getattr(error, "actor_init_failed", False):
                raise UserError(f"a sampler cannot start: {cause(error)}") from error
            self._count(int(name.rpartition("-")[2]), error)
            if len(self.pulling) < self._wanted():
                self._start()

    def _count(self, number: int, error: RayActorError) -> None:
        """`UserError` at too many losses without progress; those of one moment, as with a node, are one."""
        if number <= self.counted:
            return
        self.counted, progress = self.started, self._status().progress
        self.losses = self.losses + 1 if progress == self.progress_at_loss else 1
        self.progress_at_loss = progress
        if self.losses > MAX_LOSSES:
            raise UserError(f"samplers are lost again and again: {cause(error)}") from error


class Gauges:
    """The run's figures for Ray's dashboard, Prometheus and Grafana."""

    def __init__(self) -> None:
        self.progress = Gauge("diffgen_images", "Images painted, with parts of those in the works.")
        self.forwards = Gauge("diffgen_forwards", "Forwards of the base patch.")
        self.fill = Gauge("diffgen_batch_fill", "Share of the micro-batches' rows that was asked for.")
        self.busy = Gauge("diffgen_busy_seconds", "Seconds a sampler computed.", tag_keys=("sampler",))

    def show(self, status: Status) -> None:
        self.progress.set(status.progress)
        self.forwards.set(status.forwards)
        self.fill.set(status.rows / max(status.slots, 1))
        for sampler, seconds in status.busy.items():
            self.busy.set(seconds, {"sampler": sampler})
