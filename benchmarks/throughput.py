"""How fast is `diffgen synthesize`, and what sets the limit? Five parts, a table each.

    python benchmarks/throughput.py [BUNDLE] [--only PART ...] [--json FILE] [--quick]

BUNDLE: a folder made by `diffgen train`; without one, the demo's models with random weights.

efficiency   forwards a second of the command on its Ray pool, from the first commit to the last shard ÷
             those of the bare image U-Net in a loop: same micro-batch, threads and mixture of patch sides,
             before and after each run (A B A), median. Only the image model runs (label maps are given).
             Wide patches count as the base patches that have as many pixels. Two samplers are held against
             bare loops in two processes, from when both have committed. Goals: 0.95 and 0.90.
paper        the command against the paper's sampler: random patches, one patch and one label at a time,
             a conditional and an ∅ forward each (label 0: only ∅), 250 DDIM steps with η = 1. Same
             weights and label maps, canvas four patches wide, a label a forward and ω = 3 on both sides.
             Forwards are counted whole; the paper's time is taken on some of its steps and scaled by
             forwards (--full: all). Goals: 16 times fewer forwards, 25 times less time.
coordinator  leases and commits of paper-size patches (4×64×64) by a worker that answers zeros at once:
             in this process, and over Ray with the pool's own loop. 1,000 such patches a second are an H100.
scaling      what that makes of 1 to 512 samplers, by simulation (see simulate.py for what it assumes).
memory       most memory (RSS) of writer, coordinator and sampler, each its own process, for images up to
             16,384² written as tiles of 512; U-Nets and decoder are trivial, the rest is the command's own.
             Bytes a latent pixel are those of the arrays of the canvas; goal 16·C + 8.

On two cores all of it takes about an hour; --quick two minutes, with numbers that mean nothing.
--json adds to what the file has from other parts.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import cycle
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from diffusers import DDIMScheduler
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from benchmarks import simulate
from diffgen import config
from diffgen.cluster import computing
from diffgen.labels import LabelMap, Labels
from diffgen.models import bundle
from diffgen.models.autoencoder import LatentCodec, LinearAutoencoder
from diffgen.models.mask_codec import num_bits
from diffgen.sampling import covers, decode, denoise, masks
from diffgen.sampling.canvas import Canvas
from diffgen.sampling.solvers import noise_schedule
from diffgen.schema import Sampling
from diffgen.synthesis import driver
from diffgen.synthesis.coordinator import Coordinator
from diffgen.synthesis.leases import Lease, Status, Work
from diffgen.synthesis.plan import Plan, make_plan
from diffgen.synthesis.pool import GPUS_FED
from diffgen.synthesis.render import Render, Rendered, png
from diffgen.synthesis.sampler import Sampler
from diffgen.synthesis.task import Task, claim

CONSOLE = Console()
CONSOLE.width = max(CONSOLE.width, 140)  # a table is not cut where it is written to a file
CLASSES = ("unknown", "background", "stroma", "tumour", "necrosis")
NUM_MAPS = 4  # different given label maps
REGION = 1.0  # typical size of a region of the label maps, in patches: about two labels a patch
PAPER_STEPS, PAPER_GUIDANCE = 250, 3.0
STEPS = Sampling().steps_for(1)
H100 = 1000  # paper-size patches a second


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    seconds: float = 40.0
    """Of one run of the pipeline; a bare loop takes a quarter."""
    repeats: int = 5
    paper_steps: int = 10
    """Of the paper's 250, the ones that are timed."""
    patches: int = 6000
    """Of a coordinator's run."""
    images: int = 10_000
    """Of the simulated fleet."""
    sides: tuple[int, ...] = (2048, 8192, 16_384)
    """Of the images whose memory is taken, in pixels."""
    tile: int = 512


QUICK = Effort(seconds=2, repeats=1, paper_steps=2, patches=600, images=200, sides=(512, 1024), tile=512)


# Bundles and label maps


def demo_bundle(folder: Path) -> Path:
    """A bundle of the demo preset's models with random weights that do not give zeros."""
    settings, labels = config.load("demo"), Labels(CLASSES)
    torch.manual_seed(0)
    autoencoder = settings.autoencoder
    codec = LatentCodec(
        LinearAutoencoder.fit(torch.rand(4, 3, 64, 64) * 2 - 1, autoencoder.factor, autoencoder.channels)
    )
    image = bundle.new_image_unet(settings, labels)
    mask = bundle.new_mask_unet(settings, labels, num_bits(len(labels)))
    for parameter in (*image.parameters(), *mask.parameters()):
        parameter.data += 0.02 * torch.randn_like(parameter)
    diffusion = settings.diffusion
    schedule = dict(noise_schedule(diffusion.steps, diffusion.schedule, diffusion.prediction).config)
    made = bundle.Bundle(bundle.facts_of(settings, codec), labels, schedule, codec, image, mask)
    bundle.save(made, folder, settings, "Random weights, to measure with.\n")
    return folder


def per_label(folder: Path, copy: Path) -> Path:
    """The same bundle, said to be conditioned on one label a forward."""
    bundle.unpack(bundle.pack(folder), copy)
    index = json.loads((copy / bundle.INDEX).read_text())
    (copy / bundle.INDEX).write_text(json.dumps(index | {"conditioning": "per_label"}))
    return copy


def label_map(side: int, region: float, classes: int, seed: int) -> LabelMap:
    """Random regions of all classes, unknown among them, about `region` pixels wide."""
    rng = np.random.default_rng(seed)
    coarse = max(4, round(4 * side / region))
    fields = ndimage.gaussian_filter(rng.standard_normal((classes, coarse, coarse)), (0, 2, 2), mode="wrap")
    nearest = np.arange(side) * coarse // side
    return fields.argmax(axis=0).astype(np.uint8)[np.ix_(nearest, nearest)]


def write_maps(folder: Path, side: int, patch_px: int, classes: int) -> Path:
    folder.mkdir()
    for k in range(NUM_MAPS):
        (folder / f"{k}.png").write_bytes(png(label_map(side, REGION * patch_px, classes, k)))
    return folder


def settings_of(folder: Path, **options: Any) -> config.Settings:
    """The bundle's own settings, and `section__key=value` over them."""
    dotted = {key.replace("__", "."): value for key, value in options.items()}
    return config.load(under=config.read_yaml(folder / "settings.yaml"), options=dotted)


def forwards_of(plan: Plan, index: int) -> int:
    """Base forwards of the image model for an image under its given label map."""
    given = plan.given(index)
    assert given is not None
    model, on_grid = plan.model("image"), masks.on_grid(given[1], plan.facts.factor)
    return denoise.forwards(on_grid, model.covering(*on_grid.shape, index), *model.guidance)


# The command, and the bare U-Net


@dataclass
class Clock:
    """Reports of a run of the command, with the time of each."""

    samplers: int
    first: tuple[float, int] | None = None
    """When all samplers have committed, and forwards until then."""
    last: tuple[float, int] = (0.0, 0)

    def __call__(self, status: Status) -> None:
        self.last = time.monotonic(), status.forwards
        if self.first is None and status.forwards and len(status.busy) >= self.samplers:
            self.first = self.last

    @property
    def rate(self) -> float:
        """Forwards a second; the last report comes when the last shard is committed."""
        assert self.first is not None, "all samplers took part"
        assert self.last[1] > self.first[1], "the run is long enough to be measured"
        return (self.last[1] - self.first[1]) / (self.last[0] - self.first[0])


def run_command(folder: Path, settings: config.Settings, given: Path, samplers: int) -> tuple[float, int]:
    """Forwards a second of the command on Ray, and forwards in all."""
    clock = Clock(samplers)

    @contextmanager
    def shown(_console: Console, _total: int) -> Iterator[Clock]:
        yield clock

    with tempfile.TemporaryDirectory() as out, mock.patch.object(driver, "_shown", shown):
        driver.synthesize(folder, str(Path(out) / "out"), settings, given, False, Console(quiet=True))
    return clock.rate, clock.last[1]


class Bare:
    """A bundle's networks in a process like a sampler's, without a pipeline (an actor)."""

    def __init__(self, packed: dict[str, bytes], sampling: config.Sampling) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.sampler = Sampler(bundle.unpack(packed, Path(folder)), sampling)

    @torch.inference_mode()
    def loop(self, sides: Sequence[int], seconds: float) -> float:
        """Base forwards a second of the image U-Net on fixed inputs, a micro-batch of each side in turn."""
        sampler, facts = self.sampler, self.sampler.bundle.facts
        unet, base = sampler.bundle.image_unet, facts.image_patch
        assert unet is not None
        batches = {}
        for side in set(sides):
            rows = denoise.batch_size(sampler.sampling.micro_batch, base, (side, side))
            latents = torch.randn(rows, facts.image_channels, side, side)
            maps = torch.randint(len(sampler.bundle.labels), (rows, side, side), dtype=torch.uint8)
            inputs = [x.to(sampler.device) for x in (latents, torch.full((rows,), 500), maps)]
            batches[side] = inputs, rows * side**2 / base**2
            unet(*inputs)  # warm
        self._wait()
        began, done = time.perf_counter(), 0.0
        for side in cycle(sides):
            inputs, forwards = batches[side]
            unet(*inputs)
            done += forwards
            if sampler.device.type == "cpu" or done % 100 < forwards:
                self._wait()
                if time.perf_counter() - began > seconds:
                    break
        return done / (time.perf_counter() - began)

    def _wait(self) -> None:
        if self.sampler.device.type == "cuda":
            torch.cuda.synchronize()

    def paper(self, on_latents: LabelMap, steps: Sequence[int], total: int) -> tuple[int, float]:
        """Forwards and seconds of some steps of the paper's sampler, with decoding and PNG."""
        sampler, facts = self.sampler, self.sampler.bundle.facts
        network = denoise.image_denoiser(sampler.bundle.image_unet)
        schedule, sampling = sampler.bundle.schedule, sampler.sampling
        began = time.perf_counter()
        latents, forwards = paper_sampler(
            network, facts.image_channels, facts.image_patch, schedule, on_latents, steps, total
        )
        seconds = time.perf_counter() - began
        began = time.perf_counter()
        png(decode.decode(sampler.bundle.codec.decode, latents.numpy(), facts.factor,
                          sampling.decode_tile, sampling.decode_overlap))  # fmt: skip
        share = len(steps) / total  # decoding is done once an image, not once a step
        return forwards, seconds + share * (time.perf_counter() - began)


@contextmanager
def bare_actors(folder: Path, sampling: config.Sampling, number: int) -> Iterator[list[Any]]:
    """Processes with the resources of a sampler, ready."""
    import ray

    gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
    make = ray.remote(num_cpus=sampling.threads, num_gpus=gpus, runtime_env=computing(bool(gpus)))(Bare)
    actors = [make.remote(bundle.pack(folder), sampling) for _ in range(number)]
    try:
        ray.get([actor.__ray_ready__.remote() for actor in actors])
        yield actors
    finally:
        for actor in actors:
            ray.kill(actor)


def bare_rate(folder: Path, plan: Plan, size: tuple[int, int], number: int, seconds: float) -> float:
    """Base forwards a second of so many bare loops side by side."""
    import ray

    covering = plan.model("image").covering(*size, 0)
    sides = [covering.side(step) for step in range(plan.steps)]
    with bare_actors(folder, plan.sampling, number) as actors:
        return float(sum(ray.get([actor.loop.remote(sides, seconds) for actor in actors])))


def side_of(facts: bundle.Facts, patches: int) -> int:
    return patches * facts.image_patch * facts.factor


def efficiency(folder: Path, effort: Effort, samplers: Sequence[int]) -> dict[str, Any]:
    """Rates of command and bare loops by turns, and the median of their ratios."""
    facts, classes = bundle.load(folder, weights=False).facts, len(bundle.load(folder, weights=False).labels)
    side = side_of(facts, 4)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        given = write_maps(Path(temporary) / "maps", side, side // 4, classes)
        for number in samplers:
            settings = settings_of(folder, synthesis__samplers=number)
            plan = make_plan(bundle.pack(folder), folder, settings, given)
            latent = (side // facts.factor,) * 2
            bare = [bare_rate(folder, plan, latent, number, effort.seconds / 4)]
            an_image = statistics.mean(forwards_of(plan, k) for k in range(NUM_MAPS))
            n = max(2 * number, round(effort.seconds * bare[0] / an_image))
            settings = settings_of(folder, synthesis__samplers=number, synthesis__n=n)
            runs = []
            for _ in range(effort.repeats):
                runs.append(run_command(folder, settings, given, number)[0])
                bare.append(bare_rate(folder, plan, latent, number, effort.seconds / 4))
            ratios = [run / statistics.mean(bare[k : k + 2]) for k, run in enumerate(runs)]
            found[str(number)] = {
                "ratio": statistics.median(ratios), "ratios": ratios, "bare": bare, "command": runs,
                "images": n, "forwards_an_image": an_image,
            }  # fmt: skip
    return found


# The paper's sampler


def paper_forwards(labels: LabelMap) -> int:
    """A conditional and an ∅ forward for each label of a patch, for label 0 only the ∅ one."""
    present = np.unique(labels)
    return 2 * len(present) - int(0 in present)


def paper_cover(shape: tuple[int, int], patch: int, step: int) -> covers.Cover:
    return covers.random(*shape, patch, np.random.default_rng(step))


@torch.inference_mode()
def paper_sampler(
    network: denoise.Denoiser, channels: int, patch: int, schedule: dict[str, Any], label_map: LabelMap,
    steps: Sequence[int], total: int,
) -> tuple[torch.Tensor, int]:  # fmt: skip
    """Algorithm 2 as the paper and its code run it: those of `total` DDIM steps that are in `steps`.

    Patches one by one, each pixel from the first that holds it; labels one by one, each with its own ∅
    pass, batch 1. Gives the latents (C, H, W) and the forwards.
    """
    scheduler = DDIMScheduler.from_config(
        {**schedule, "clip_sample": False}, timestep_spacing="trailing", set_alpha_to_one=True
    )
    scheduler.set_timesteps(total)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((channels, *label_map.shape), generator=generator)
    forwards = 0
    for step in steps:
        t = scheduler.timesteps[step]
        noise = torch.empty_like(latents)
        cover = paper_cover(label_map.shape, patch, step)
        for number in range(len(cover)):
            rows, columns = cover.box(number)
            crop, labels = latents[None, :, rows, columns], label_map[rows, columns]
            estimate = torch.empty_like(crop[0])
            for label in np.unique(labels):
                null = network(crop, t[None], torch.zeros(1, patch, patch, dtype=torch.uint8)).cpu()[0]
                combined = null
                if label:
                    alone = torch.from_numpy(np.where(labels == label, labels, np.uint8(0))[None])
                    given = network(crop, t[None], alone).cpu()[0]
                    combined = (1 + PAPER_GUIDANCE) * given - PAPER_GUIDANCE * null
                where = torch.from_numpy(labels == label)
                estimate[:, where] = combined[:, where]
                forwards += 2 if label else 1
            owned = torch.from_numpy(cover.owned(number))
            noise[:, rows, columns][:, owned] = estimate[:, owned]
        latents = scheduler.step(noise, t, latents, eta=1.0, generator=generator).prev_sample
    return latents, forwards


def paper(folder: Path, effort: Effort, full: bool) -> dict[str, Any]:
    """Forwards and seconds an image of the paper's sampler and of the command."""
    import ray

    loaded = bundle.load(folder, weights=False)
    facts, side = loaded.facts, side_of(loaded.facts, 4)
    steps = range(PAPER_STEPS)
    timed = steps if full else [k * PAPER_STEPS // effort.paper_steps for k in range(effort.paper_steps)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = per_label(folder, Path(temporary) / "bundle")
        given = write_maps(Path(temporary) / "maps", side, side // 4, len(loaded.labels))
        options = {"sampling__guidance": PAPER_GUIDANCE, "synthesis__samplers": 1}
        settings = settings_of(folder, **options)
        plan = make_plan(bundle.pack(folder), folder, settings, given)
        there = [given_map for k in range(NUM_MAPS) if (given_map := plan.given(k)) is not None]
        maps = [masks.on_grid(label_map, facts.factor) for _, label_map in there]
        with bare_actors(folder, plan.sampling, 1) as (actor,):
            done, seconds = ray.get(actor.paper.remote(maps[0], timed, PAPER_STEPS))
        an_image = statistics.mean(forwards_of(plan, k) for k in range(NUM_MAPS))
        rate = done / seconds  # ours is faster: a first guess of how many images fill the time
        n = max(1, round(effort.seconds * rate / an_image))
        n -= n % NUM_MAPS if n > NUM_MAPS else 0  # every map as often
        maps = maps[:n]
        theirs = labels = patches = 0
        for step in steps:
            cover = paper_cover(maps[0].shape, facts.image_patch, step)
            for number in range(len(cover)):
                crops = [whole[cover.box(number)] for whole in maps]
                theirs += sum(paper_forwards(crop) for crop in crops)
                labels += sum(len(np.unique(crop)) for crop in crops)
            patches += len(cover) * len(maps)
        settings = settings_of(folder, **options, synthesis__n=n)
        our_rate, forwards = run_command(folder, settings, given, 1)
    their_forwards, our_forwards = theirs / len(maps), forwards / n
    their_seconds, our_seconds = their_forwards * seconds / done, our_forwards / our_rate
    return {
        "forwards": their_forwards / our_forwards,
        "time": their_seconds / our_seconds,
        "paper": {"forwards": their_forwards, "seconds": their_seconds, "timed_forwards": done,
                  "patches_a_step": patches / len(maps) / PAPER_STEPS, "labels_a_patch": labels / patches},
        "ours": {"forwards": our_forwards, "seconds": our_seconds, "images": n},
    }  # fmt: skip


# The coordinator


def paper_plan(side: int, n: int, emit: str = "images", tile: int = 512, given: bool = True) -> Task:
    """A task for paper-size patches, 4×64×64 at factor 8, without weights: one forward a patch."""
    facts = bundle.Facts(
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
    task = Task(plan, {}, "", n, settings.synthesis, {})
    return replace(task, lacking={0: tuple(range(task.total))})


@dataclass
class Zeros:
    """A sampler that answers zeros at once."""

    patches: int = 0
    num_bytes: int = 0
    calls: int = 0

    def finish(self, _lease: Lease, computed: Work) -> Work:
        return computed

    def compute(self, lease: Lease) -> Work:
        if lease.patches is None:
            assert isinstance(lease.item, Render)
            height, width = (8 * side for side in lease.item.canvas)
            return Work([Rendered(0, 0, 0, height, width, b"", b"", [1.0])])
        patches, owned = lease.patches, int(lease.patches.owned.sum())
        result = np.zeros((patches.latents.shape[1], owned), dtype=np.float32)
        arrays = (patches.latents, patches.timesteps, patches.labels, patches.owned, result)
        self.patches += len(patches.latents)
        self.num_bytes += sum(array.nbytes for array in arrays)
        self.calls += 1
        return Work(result, len(patches.latents), len(patches.latents))


def coordinator_task(patches: int) -> Task:
    """Images of 2048², 256² latents, until there are so many patches."""
    task = paper_plan(2048, 1)
    an_image = forwards_of(task.plan, 0)
    n = max(2, round(patches / an_image))
    return replace(task, n=n, lacking={0: tuple(range(n))})


def in_process(task: Task, budget: int) -> dict[str, float]:
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
        "patches_a_second": zeros.patches / (sum(spent.values())),
        "with_the_worker": zeros.patches / seconds,
        "mb_a_second": zeros.num_bytes / sum(spent.values()) / 1e6,
        "lease_us_a_patch": 1e6 * spent["lease"] / zeros.patches,
        "commit_us_a_patch": 1e6 * spent["commit"] / zeros.patches,
        "step_us_a_patch": 1e6 * spent["step"] / zeros.patches,
        "step_ns_a_latent_pixel": 1e9 * spent["step"] / pixels,
    }


class CountingCoordinator(Coordinator):
    """Also says how much of its process's time it took."""

    def cpu(self) -> float:
        return time.process_time()

    def nothing(self) -> None:
        """An empty call."""


def over_ray(task: Task, budget: int) -> dict[str, float]:
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
        "patches_a_second": zeros.patches / seconds,
        "leases_a_second": zeros.calls / seconds,
        "mb_a_second": zeros.num_bytes / seconds / 1e6,
        "coordinator_cpu_us_a_patch": 1e6 * busy / zeros.patches,
        "round_trip_ms": 1e3 * round_trip,
        "h100s": zeros.patches / seconds / H100,
    }


def coordinator(effort: Effort) -> dict[str, Any]:
    task = coordinator_task(effort.patches)
    return {
        str(budget): {"in_process": in_process(task, budget), "ray": over_ray(task, budget)}
        for budget in (32, 64, 128)
    }


# Scaling


ASSUMED: dict[str, Any] = {
    "in_process": {"lease_us_a_patch": 60.0, "commit_us_a_patch": 60.0, "step_ns_a_latent_pixel": 40.0},
    "ray": {"patches_a_second": 4000.0, "round_trip_ms": 3.0},
}
"""Where the coordinator was not measured before."""


def costs_of(measured: dict[str, Any], render_s: float = 0.0) -> simulate.Costs:
    """The coordinator's time over Ray: what the class takes by itself, the rest a call's and its bytes'."""
    inside, ray = measured["in_process"], measured["ray"]
    lease_s, commit_s = (inside[f"{name}_us_a_patch"] / 1e6 for name in ("lease", "commit"))
    step_s = inside["step_ns_a_latent_pixel"] / 1e9
    an_average_patch = 256**2 / 28.9  # stepped pixels a patch, of the images it was measured with
    rest = max(0.0, 1 / ray["patches_a_second"] - lease_s - commit_s - step_s * an_average_patch) / 2
    trip = ray["round_trip_ms"] / 1e3
    return simulate.Costs(lease_s + rest, commit_s + rest, step_s, trip / 4, trip, render_s=render_s)


def scaling(effort: Effort, measured: dict[str, Any] | None, per_coordinator: int) -> dict[str, Any]:
    """Efficiency by samplers, for many images and for one; `measured`: part `coordinator`, lease 64."""
    costs = costs_of(measured or ASSUMED)
    found: dict[str, Any] = {
        "measured": measured is not None,
        "costs": asdict(costs),
        "samplers_per_coordinator": per_coordinator,
        "many": {},
        "one_stepwise": {},
        "one_blockwise": {},
    }
    for samplers in (1, 8, 64, 512):
        fleet = simulate.Fleet(samplers, per_coordinator, budget=64)
        n = max(min(effort.images, 100 * samplers), min(effort.images, 400))  # fewer for few: the same ratio
        found["many"][str(samplers)] = asdict(simulate.many_images(n, 256, 64, STEPS, fleet, costs))
        side = 2048 if effort.images > 1000 else 512
        one = replace(fleet, samplers_per_coordinator=samplers, micro_batch=8, in_flight=1)
        for name, by_blocks in (("one_stepwise", False), ("one_blockwise", True)):
            found[name][str(samplers)] = asdict(simulate.one_image(side, 64, STEPS, by_blocks, one, costs))
    return found


# Memory


def most_mb() -> float:
    """Most resident memory of this process so far; /proc, as `ru_maxrss` is inherited from the parent."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


def canvas_bytes(canvas: Canvas) -> int:
    """Of all arrays that the canvas holds."""
    cover = canvas.cover
    arrays: list[Any] = [canvas.latents, canvas.noise, canvas.time_state, canvas.label_map, canvas.due]
    arrays += [cover.owner, cover.weights, cover.boxes, *canvas.early.values()]
    kept = [
        item
        for history in canvas.histories
        for value in history.values()
        for item in (value if isinstance(value, list) else [value])
        if isinstance(item, torch.Tensor)
    ]
    return sum(a.nbytes for a in arrays if a is not None) + sum(t.numel() * t.element_size() for t in kept)


def serve(task: Task, pipes: list[Connection]) -> None:
    """The coordinator's process: calls (method, arguments) from writer and sampler until both say `stop`."""
    torch.set_num_threads(1)
    base = most_mb()
    coordinator, most = task.coordinator(), 0.0
    turns: dict[int, int] = {}
    while True:
        for pipe in wait(pipes):
            assert isinstance(pipe, Connection)
            method, arguments = pipe.recv()
            if method == "stop":
                pipe.send({"base": base, "peak": most_mb(), "bytes_a_latent_pixel": most})
                pipes.remove(pipe)
                if not pipes:
                    return
                continue
            pipe.send(getattr(coordinator, method)(*arguments))
            for painting in coordinator.paintings.values():
                if (
                    painting.stage == "image"
                    and painting.canvas
                    and turns.get(painting.index) != painting.turn
                ):
                    turns[painting.index] = painting.turn
                    pixels = painting.canvas.label_map.size
                    most = max(most, canvas_bytes(painting.canvas) / pixels)


def trivial_sampler(plan: Plan) -> Sampler:
    """The command's sampler; its U-Nets give zeros, its decoder enlarges and adds a texture."""
    sampler, facts = Sampler.__new__(Sampler), plan.facts
    codec = LatentCodec(LinearAutoencoder(facts.factor, facts.image_channels))
    side = plan.sampling.decode_tile * facts.factor
    texture = 0.03 * torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))

    def decoder(latents: torch.Tensor) -> torch.Tensor:
        large = latents[:, :3].repeat_interleave(facts.factor, 2).repeat_interleave(facts.factor, 3)
        return (0.2 * large).add_(texture[..., : large.shape[2], : large.shape[3]])

    codec.decode = decoder  # type: ignore[method-assign]  # in place of a real one
    sampler.device, sampler.sampling = torch.device("cpu"), plan.sampling
    sampler.bundle = bundle.Bundle(facts, plan.labels, plan.schedule, codec)

    def zeros(latents: torch.Tensor, _t: torch.Tensor, _maps: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(latents)

    sampler.models = {
        "mask": (zeros, facts.mask_patch, 0.0, "per_label"),
        "image": (zeros, facts.image_patch, 0.0, "joint"),
    }
    return sampler


def pull(task: Task, calls: Connection, end: Connection) -> None:
    """The sampler's process."""
    base, sampler = most_mb(), trivial_sampler(task.plan)
    while True:
        calls.send(("lease", ("sampler", task.settings.lease)))
        lease = calls.recv()
        if lease.kind == "over":
            break
        if lease.kind == "wait":
            time.sleep(0.02)
            continue
        calls.send(("commit", (lease.id, sampler.work(lease))))
        calls.recv()
    calls.send(("stop", ()))
    calls.recv()
    end.send({"base": base, "peak": most_mb()})


def paint(task: Task, end: Connection, calls: Connection) -> None:
    """The writer's process: takes what a shard lacks when it is there, as the driver does."""
    base, writer = most_mb(), task.writer()
    writer.begin(task.total)
    written: set[int] = set()

    def call(method: str, *arguments: Any) -> Any:
        calls.send((method, arguments))
        return calls.recv()

    while True:
        status = call("status")
        for k in task.ripe(status, written):
            writer.complete(k, task.total, call("take", task.lacking[k]))
            call("drop", task.lacking[k])
            written.add(k)
        if status.over:
            break
        time.sleep(0.05)
    calls.send(("stop", ()))
    end.send((calls.recv(), {"base": base, "peak": most_mb()}, dict(status.failed)))


def memory_of(side: int, tile: int, steps: int = 3, settings: dict[str, Any] | None = None) -> dict[str, Any]:
    """Megabytes by process for one image, sampled mask included."""
    blank = paper_plan(side, 1, "tiles", tile, given=False)
    sampling = blank.plan.sampling.model_copy(update={"steps": steps, "mask_steps": steps})
    synthesis = blank.settings.model_copy(update=settings or {})
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as out:
        task = claim(replace(blank.plan, sampling=sampling), {}, str(Path(out) / "out"), synthesis)
        from_sampler, to_coordinator = spawn.Pipe()
        from_writer, also_to_coordinator = spawn.Pipe()
        sampler_end, sampler_ends = spawn.Pipe(False)
        writer_end, writer_ends = spawn.Pipe(False)
        processes = [
            spawn.Process(target=serve, args=(task, [to_coordinator, also_to_coordinator]), daemon=True),
            spawn.Process(target=pull, args=(task, from_sampler, sampler_ends), daemon=True),
            spawn.Process(target=paint, args=(task, writer_ends, from_writer), daemon=True),
        ]
        began = time.monotonic()
        for process in processes:
            process.start()
        for pipe in (
            from_sampler,
            to_coordinator,
            from_writer,
            also_to_coordinator,
            sampler_ends,
            writer_ends,
        ):
            pipe.close()  # the children have them: one that dies is seen
        try:
            sampler = sampler_end.recv()
            coordinator, writer, failed = writer_end.recv()
        except EOFError as error:
            raise RuntimeError("a process of the memory measurement died") from error
        finally:
            for process in processes:
                process.join(10)
        assert not failed, failed
    pixels = (side // 8) ** 2
    return {
        "coordinator": coordinator["peak"], "sampler": sampler["peak"], "writer": writer["peak"],
        "before": {"coordinator": coordinator["base"], "sampler": sampler["base"], "writer": writer["base"]},
        "bytes_a_latent_pixel": coordinator["bytes_a_latent_pixel"],
        "rss_bytes_a_latent_pixel": (coordinator["peak"] - coordinator["base"]) * 2**20 / pixels,
        "seconds": time.monotonic() - began,
    }  # fmt: skip


# Tables


def goal(value: float, least: float) -> str:
    return f"{value:.3g} [{'green' if value >= least else 'red'}](goal {least:g})[/]"


def show_efficiency(found: dict[str, Any]) -> Table:
    table = Table("samplers", "bare forwards/s", "command forwards/s", "ratio", "runs", title="efficiency")
    for number, row in found.items():
        bare, runs = (statistics.median(row[name]) for name in ("bare", "command"))
        least = 0.95 if number == "1" else 0.90
        runs_text = f"{min(row['ratios']):.3f} to {max(row['ratios']):.3f}, {row['images']} images each"
        table.add_row(number, f"{bare:.1f}", f"{runs:.1f}", goal(row["ratio"], least), runs_text)
    return table


def show_paper(found: dict[str, Any]) -> Table:
    theirs, ours = found["paper"], found["ours"]
    table = Table("an image", "paper's sampler", "this command", "ratio", title="against the paper's sampler")
    table.caption = (
        f"{theirs['patches_a_step']:.1f} patches a step, {theirs['labels_a_patch']:.2f} labels a patch; "
        f"the paper's time from {theirs['timed_forwards']} forwards"
    )
    rows = (("forwards", 16.0, ".0f"), ("seconds", 25.0, ".1f"))
    for name, least, form in rows:
        ratio = found["forwards" if name == "forwards" else "time"]
        table.add_row(name, f"{theirs[name]:{form}}", f"{ours[name]:{form}}", goal(ratio, least))
    return table


def show_coordinator(found: dict[str, Any]) -> Table:
    table = Table(
        "lease", "in process: patches/s", "MB/s", "µs a patch: lease + commit + step",
        "Ray: patches/s", "leases/s", "MB/s", "CPU µs a patch", "round trip ms", "H100s fed",
        title="coordinator, patches of 4×64×64",
    )  # fmt: skip
    for budget, row in found.items():
        inside, ray = row["in_process"], row["ray"]
        parts = " + ".join(f"{inside[f'{name}_us_a_patch']:.0f}" for name in ("lease", "commit", "step"))
        table.add_row(
            budget, f"{inside['patches_a_second']:.0f}", f"{inside['mb_a_second']:.0f}", parts,
            f"{ray['patches_a_second']:.0f}", f"{ray['leases_a_second']:.0f}", f"{ray['mb_a_second']:.0f}",
            f"{ray['coordinator_cpu_us_a_patch']:.0f}", f"{ray['round_trip_ms']:.1f}", f"{ray['h100s']:.1f}",
        )  # fmt: skip
    return table


def show_scaling(found: dict[str, Any]) -> Table:
    names = {
        "many": "10,000 images of 2048²",
        "one_stepwise": "one image of 16,384², step by step, micro-batch 8",
        "one_blockwise": "the same, by blocks",
    }
    table = Table("efficiency of samplers", *found["many"], title="scaling, simulated: 1 ms a patch")
    table.caption = f"{'measured' if found['measured'] else 'ASSUMED'} costs: " + ", ".join(
        f"{name} {value:.2g}" for name, value in found["costs"].items()
    )
    for name, what in names.items():
        cells = [f"{row['efficiency']:.3f}" for row in found[name].values()]
        table.add_row(what, *cells)
    busy = [f"{row['coordinator_busy']:.0%}" for row in found["many"].values()]
    table.add_row("the busiest coordinator of the first row", *busy)
    return table


def show_memory(found: dict[str, Any]) -> Table:
    table = Table(
        "image", "coordinator MB", "sampler MB", "writer MB", "canvas bytes a latent pixel", "of RSS", "s",
        title="most memory (before the work)",
    )  # fmt: skip
    for side, row in found.items():
        cells = [
            f"{row[name]:.0f} ({row['before'][name]:.0f})" for name in ("coordinator", "sampler", "writer")
        ]
        canvas = f"{row['bytes_a_latent_pixel']:.1f} (goal {16 * 4 + 8})"
        rss = f"{row['rss_bytes_a_latent_pixel']:.0f}"
        table.add_row(f"{side}²", *cells, canvas, rss, f"{row['seconds']:.0f}")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE")
    parts = ("efficiency", "paper", "coordinator", "scaling", "memory")
    parser.add_argument("--only", choices=parts, action="append", help="this part (may be given again)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write or update FILE")
    parser.add_argument("--quick", action="store_true", help="see that it works")
    parser.add_argument("--full", action="store_true", help="time all 250 steps of the paper's sampler")
    parser.add_argument("--repeats", type=int, help="runs a ratio is the median of (5)")
    parser.add_argument("--seconds", type=float, help="about how long a run of the command takes (40)")
    parser.add_argument("--samplers", type=int, nargs="+", default=[1, 2], help="for efficiency (1 2)")
    parser.add_argument(
        "--samplers-per-coordinator", type=int, default=GPUS_FED, help="for scaling (the pool's, with GPUs)"
    )
    given = parser.parse_args(arguments)
    effort = QUICK if given.quick else Effort()
    effort = replace(effort, repeats=given.repeats or effort.repeats, seconds=given.seconds or effort.seconds)
    chosen = [part for part in parts if not given.only or part in given.only]
    result: dict[str, Any] = {}
    if given.json and given.json.exists():
        result = json.loads(given.json.read_text())
    details = result.setdefault("details", {})
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__}
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()

    def keep(key: str, value: Any, table: Table) -> None:
        CONSOLE.print(table)
        result[key] = value
        details.setdefault("machine", {})[key] = machine
        if given.json:
            given.json.write_text(json.dumps(result, indent=2) + "\n")

    with tempfile.TemporaryDirectory() as temporary:
        if {"efficiency", "paper"} & set(chosen):
            from diffgen.cluster import connect

            connect()
            folder = given.bundle or demo_bundle(Path(temporary) / "bundle")
        if "efficiency" in chosen:
            found = details["efficiency"] = efficiency(folder, effort, given.samplers)
            keep("efficiency", {k: row["ratio"] for k, row in found.items()}, show_efficiency(found))
        if "paper" in chosen:
            found = details["paper"] = paper(folder, effort, given.full)
            ratios = {name: found[name] for name in ("forwards", "time")}
            keep("speedup_over_paper_sampler", ratios, show_paper(found))
        if "coordinator" in chosen:
            found = coordinator(effort)
            keep("coordinator", found, show_coordinator(found))
        if "scaling" in chosen:
            measured = result.get("coordinator", {}).get("64")
            found = scaling(effort, measured, given.samplers_per_coordinator)
            keep("scaling", found, show_scaling(found))
        if "memory" in chosen:
            found = {str(side): memory_of(side, effort.tile) for side in effort.sides}
            keep("peak_memory_mb", found, show_memory(found))


if __name__ == "__main__":
    main()
