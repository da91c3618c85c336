"""Coordinator, sampler pool and shard writer as Ray actors, and the loop that watches them.

Samplers pull: each asks for its next lease while it computes the present one. A lost sampler is
replaced and what it held is handed out anew; when coordinator or writer is lost, what the folder
lacks is looked up again and painted anew, with equal bytes.
"""

import contextlib
import tempfile
import time
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from diffgen import config
from diffgen.cluster import connect
from diffgen.errors import UserError, one_line
from diffgen.models.bundle import unpack
from diffgen.synthesis.coordinator import Coordinator, Lease, Status
from diffgen.synthesis.sampler import Sampler
from diffgen.synthesis.shards import ShardWriter
from diffgen.synthesis.task import Report, Task, look_again

WAIT_S = 0.02  # between two asks of an idle sampler
POLL_S = 0.2
EXPIRE_S = 5.0
MAX_LOSSES = 5  # of actors, with nothing achieved in between: then it is no accident


class PooledSampler:
    """A sampler that pulls leases from a coordinator until there are none (an actor)."""

    def __init__(self, packed: dict[str, bytes], sampling: config.Sampling) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.sampler = Sampler(unpack(packed, Path(folder)), sampling)

    def pull(self, name: str, coordinator: Any, budget: int) -> None:
        """Work until the coordinator says that all is over."""
        asked, told, idle = coordinator.lease.remote(name, budget), None, False
        while True:
            lease: Lease = ray.get(asked)
            if told is not None:
                ray.get(told)  # an error in the coordinator ends the run instead of losing the work
            if lease.kind == "over":
                return
            if lease.kind == "wait":
                if idle:
                    time.sleep(WAIT_S)
                asked, idle = coordinator.lease.remote(name, budget), True
                continue
            asked, idle = coordinator.lease.remote(name, budget), False
            told = coordinator.commit.remote(lease.id, self.sampler.work(lease))


def paint_on_ray(task: Task, report: Report) -> Status:
    """Paint and write what the task lacks, on the cluster; the final figures.

    Raises `UserError` where actors are lost again and again with no shard committed in between.
    """
    connect()
    losses, left, total = 0, len(task.indices), task.images
    while True:
        pool = Pool(task)
        try:
            return pool.run(partial(_report_all, report, total - task.images))
        except RayActorError as error:
            pool.close()  # one writer a folder at a time
            task = look_again(task)
            losses = losses + 1 if len(task.indices) == left else 0
            left = len(task.indices)
            if losses > MAX_LOSSES:
                raise UserError(
                    f"coordinator or writer is lost again and again: {one_line(error)[:200]}"
                ) from error
        finally:
            pool.close()


def _report_all(report: Report, before: int, status: Status) -> None:
    """Figures of this attempt, with the images of those before."""
    report(replace(status, images=before + status.images, progress=before + status.progress))


class Pool:
    """The actors of one attempt."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.packed = ray.put(task.packed)  # travels to each node once
        sampling, settings = task.plan.sampling, task.settings
        gpus, cpus = (int(ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU"))
        auto = gpus or max(1, cpus // sampling.threads)
        self.count = auto if settings.samplers == "auto" else settings.samplers
        in_flight = max(settings.in_flight, 2 * self.count)  # enough for all samplers to find work
        free = ray.remote(num_cpus=0)
        if task.writer().store.folder is not None:  # a local folder is the driver's
            here = ray.get_runtime_context().get_node_id()
            free = ray.remote(
                num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False)
            )
        self.coordinator = free(Coordinator).remote(
            task.plan, task.indices, in_flight, settings.lease_timeout_s, task.out, settings.snapshot_s
        )
        self.writer = free(ShardWriter).remote(task.out, task.plan.run, settings.images_per_shard)
        resources = {"num_cpus": min(sampling.threads, cpus), "num_gpus": 1 if gpus else 0}
        self.sampler = ray.remote(**resources)(PooledSampler)
        self.pulling: dict[Any, tuple[str, Any]] = {}
        self.writing: dict[Any, int] = {}
        self.begun: set[int] = set()
        self.started = self.losses = self.patches_at_loss = 0

    def run(self, report: Report) -> Status:
        for _ in range(self.count):
            self._start()
        expired = time.monotonic()
        while True:
            done, _ = ray.wait([*self.pulling, *self.writing], timeout=POLL_S)
            for reference in done:
                self._written(reference) if reference in self.writing else self._stopped(reference)
            if time.monotonic() - expired > EXPIRE_S:
                expired = time.monotonic()
                self._replace(ray.get(self.coordinator.expire.remote()))
            status: Status = ray.get(self.coordinator.status.remote())
            report(status)
            for k in self.task.ripe(status, self.begun):
                samples = self.coordinator.take.remote(self.task.lacking[k])
                self.writing[self.writer.complete.remote(k, self.task.total, samples)] = k
                self.begun.add(k)
            if status.over and not self.writing:
                return status

    def close(self) -> None:
        """Kill the actors, and wait for the writer's end."""
        for actor in (self.coordinator, self.writer, *(actor for _, actor in self.pulling.values())):
            ray.kill(actor)
        with contextlib.suppress(RayActorError):
            ray.get(self.writer.__ray_ready__.remote())

    def _replace(self, names: Collection[str]) -> None:
        """Kill samplers that hang; `_stopped` starts others."""
        for name, actor in self.pulling.values():
            if name in names:
                ray.kill(actor)

    def _start(self) -> None:
        self.started += 1
        name = f"sampler-{self.started}"
        actor = self.sampler.remote(self.packed, self.task.plan.sampling)
        self.pulling[actor.pull.remote(name, self.coordinator, self.task.settings.lease)] = name, actor

    def _written(self, reference: Any) -> None:
        ray.get(reference)
        self.coordinator.drop.remote(self.task.lacking[self.writing.pop(reference)])

    def _stopped(self, reference: Any) -> None:
        """A sampler has ended: because all is over, or because it was lost."""
        name, _ = self.pulling.pop(reference)
        try:
            ray.get(reference)
        except RayActorError as error:
            ray.get(self.coordinator.release.remote(name))
            patches = ray.get(self.coordinator.status.remote()).patches
            self.losses = self.losses + 1 if patches == self.patches_at_loss else 1
            self.patches_at_loss = patches
            if self.losses > MAX_LOSSES:
                raise UserError(f"samplers are lost again and again: {one_line(error)[:200]}") from error
            self._start()
