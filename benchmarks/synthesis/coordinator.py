"""How many patches per second the coordinator serves, in this process and over Ray."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from rich.table import Table

from benchmarks.synthesis.bundles import CLASSES, forwards_of, label_map
from benchmarks.synthesis.effort import Effort
from diffgen import config
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.sampling.canvas import Canvas
from diffgen.sampling.solvers import noise_schedule
from diffgen.synthesis.backlog import Backlog
from diffgen.synthesis.coordinator import Coordinator
from diffgen.synthesis.leases import Lease, PatchBatch, Result
from diffgen.synthesis.plan import Plan
from diffgen.synthesis.render import RenderedTile, RenderJob, png

H100 = 1000  # paper-size patches per second


def paper_plan(side: int, n: int, emit: str = "images", tile: int = 512, given: bool = True) -> Backlog:
    """A task for paper-size patches, 4×64×64 at factor 8, without weights: one forward per patch."""
    facts = bundle.GeneratorConfig(
        mpp=0.5, mask_pixel_um=8.0, factor=8, image_channels=4, image_patch=64, mask_patch=64,
        patch_by_log_snr=((None, 64),), conditioning="joint",
        latents_mean=(0.0,) * 4, latents_deviation=(1.0,) * 4,
    )  # fmt: skip
    settings = config.load(
        options={"sampling.micro_batch": 32, "synthesis.n": n, "synthesis.emit": emit, "synthesis.tile": tile}
    )
    maps = (("map.png", png(label_map(side, 512, len(CLASSES), 0))),) if given else ()
    schedule = dict(noise_schedule(1000, "squaredcos_cap_v2", "epsilon").config)
    tiles = tile if emit == "tiles" else None
    plan = Plan(
        facts,
        Labels(CLASSES),
        schedule,
        settings.sampling,
        0,
        ((side, side),),
        tiles,
        None,
        maps,
        {"of": side},
    )
    task = Backlog(plan, {}, "", n, settings.synthesis, {})
    return replace(task, missing={0: tuple(range(task.total))})


@dataclass
class Zeros:
    """A sampler that answers zeros at once."""

    patches: int = 0
    num_bytes: int = 0
    calls: int = 0

    def finish(self, _lease: Lease, computed: Result) -> Result:
        return computed

    def compute(self, lease: Lease) -> Result:
        if not isinstance(lease.work, PatchBatch):
            assert isinstance(lease.work, RenderJob)
            height, width = (8 * side for side in lease.work.canvas)
            return Result([RenderedTile(0, 0, 0, height, width, b"", b"", [1.0])])
        patches, owned = lease.work, int(lease.work.owned.sum())
        result = np.zeros((patches.latents.shape[1], owned), dtype=np.float32)
        arrays = (patches.latents, patches.timesteps, patches.labels, patches.owned, result)
        self.patches += len(patches.latents)
        self.num_bytes += sum(array.nbytes for array in arrays)
        self.calls += 1
        return Result(result, len(patches.latents), len(patches.latents))


def coordinator_task(patches: int) -> Backlog:
    """Images of 2048², 256² latents, until there are so many patches."""
    task = paper_plan(2048, 1)
    an_image = forwards_of(task.plan, 0)
    n = max(2, round(patches / an_image))
    return replace(task, n=n, missing={0: tuple(range(n))})


def in_process(task: Backlog, budget: int) -> dict[str, float]:
    """The plain class: seconds of leases and of commits, those that step a canvas apart."""
    torch.set_num_threads(1)  # as an actor has it: blocks are too small to share
    coordinator = Coordinator(task.plan, task.indices, task.settings.in_flight, 600.0)
    zeros, spent = Zeros(), {"lease": 0.0, "commit": 0.0, "step": 0.0}
    advance, began_all = Canvas.advance, time.perf_counter()

    def timed(canvas: Canvas) -> None:
        began = time.perf_counter()
        advance(canvas)
        spent["step"] += time.perf_counter() - began

    with mock.patch.object(Canvas, "advance", timed):
        while not coordinator.over:
            began = time.perf_counter()
            lease = coordinator.lease("zeros", budget)
            spent["lease"] += time.perf_counter() - began
            work = zeros.compute(lease)
            began = time.perf_counter()
            coordinator.commit(lease.id, work)
            spent["commit"] += time.perf_counter() - began
    seconds = time.perf_counter() - began_all
    spent["commit"] -= spent["step"]
    pixels = (2048 // 8) ** 2 * task.plan.steps * task.n
    return {
        "patches_per_second": zeros.patches / (sum(spent.values())),
        "with_the_worker": zeros.patches / seconds,
        "mb_per_second": zeros.num_bytes / sum(spent.values()) / 1e6,
        "lease_us_per_patch": 1e6 * spent["lease"] / zeros.patches,
        "commit_us_per_patch": 1e6 * spent["commit"] / zeros.patches,
        "step_us_per_patch": 1e6 * spent["step"] / zeros.patches,
        "step_ns_per_latent_pixel": 1e9 * spent["step"] / pixels,
    }


class CountingCoordinator(Coordinator):
    """Also says how much of its process's time it took."""

    def cpu(self) -> float:
        return time.process_time()

    def nothing(self) -> None:
        """An empty call."""


def over_ray(task: Backlog, budget: int) -> dict[str, float]:
    """An actor each, and the pool's own loop between them."""
    import ray

    from diffgen.cluster import connect
    from diffgen.synthesis.pool import PooledSampler

    connect()

    class ZeroSampler(PooledSampler):
        def __init__(self) -> None:
            self.sampler: Any = Zeros()
            self.encoder, self.encoding = ThreadPoolExecutor(1), None

        def figures(self) -> tuple[Zeros, float]:
            return self.sampler, time.process_time()

    coordinator = ray.remote(num_cpus=0)(CountingCoordinator).remote(
        task.plan, task.indices, task.settings.in_flight, 600.0
    )
    worker = ray.remote(num_cpus=0)(ZeroSampler).remote()
    try:
        ray.get([coordinator.cpu.remote(), worker.figures.remote()])
        began = time.perf_counter()
        for _ in range(20):
            ray.get(coordinator.nothing.remote())
        round_trip = (time.perf_counter() - began) / 20
        before = ray.get(coordinator.cpu.remote())
        began = time.perf_counter()
        ray.get(worker.pull.remote("zeros", [coordinator], budget))
        seconds = time.perf_counter() - began
        busy = ray.get(coordinator.cpu.remote()) - before
        zeros, _ = ray.get(worker.figures.remote())
    finally:
        ray.kill(coordinator)
        ray.kill(worker)
    return {
        "patches_per_second": zeros.patches / seconds,
        "leases_per_second": zeros.calls / seconds,
        "mb_per_second": zeros.num_bytes / seconds / 1e6,
        "coordinator_cpu_us_per_patch": 1e6 * busy / zeros.patches,
        "round_trip_ms": 1e3 * round_trip,
        "h100s": zeros.patches / seconds / H100,
    }


def coordinator(effort: Effort) -> dict[str, Any]:
    task = coordinator_task(effort.patches)
    return {
        str(budget): {"in_process": in_process(task, budget), "ray": over_ray(task, budget)}
        for budget in (32, 64, 128)
    }


def show_coordinator(found: dict[str, Any]) -> Table:
    table = Table(
        "lease", "in process: patches/s", "MB/s", "µs a patch: lease + commit + step",
        "Ray: patches/s", "leases/s", "MB/s", "CPU µs a patch", "round trip ms", "H100s fed",
        title="coordinator, patches of 4×64×64",
    )  # fmt: skip
    for budget, row in found.items():
        inside, ray = row["in_process"], row["ray"]
        parts = " + ".join(f"{inside[f'{name}_us_per_patch']:.0f}" for name in ("lease", "commit", "step"))
        table.add_row(
            budget, f"{inside['patches_per_second']:.0f}", f"{inside['mb_per_second']:.0f}", parts,
            *(f"{ray[f'{what}_per_second']:.0f}" for what in ("patches", "leases", "mb")),
            f"{ray['coordinator_cpu_us_per_patch']:.0f}", f"{ray['round_trip_ms']:.1f}",
            f"{ray['h100s']:.1f}",
        )  # fmt: skip
    return table
