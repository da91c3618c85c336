"""The command on its Ray pool, and the bare networks in processes like a sampler's."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.synthesis.paper_sampler import paper_sampler
from diffgen import config
from diffgen.cluster import actor_runtime_env
from diffgen.labels import LabelMap
from diffgen.models import bundle
from diffgen.sampling import decode, denoise
from diffgen.synthesis import driver
from diffgen.synthesis.leases import Status
from diffgen.synthesis.plan import Plan
from diffgen.synthesis.render import png
from diffgen.synthesis.sampler import Sampler


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
        """Forwards per second; the last report comes when the last shard is committed."""
        assert self.first is not None, "all samplers took part"
        assert self.last[1] > self.first[1], "the run is long enough to be measured"
        return (self.last[1] - self.first[1]) / (self.last[0] - self.first[0])


def run_command(folder: Path, settings: config.Settings, given: Path, samplers: int) -> tuple[float, int]:
    """Forwards per second of the command on Ray, and forwards in all."""
    clock = Clock(samplers)
    with tempfile.TemporaryDirectory() as out:
        place, quiet = str(Path(out) / "out"), Console(quiet=True)
        driver.synthesize(folder, place, settings, given, False, quiet, watch=clock)
    return clock.rate, clock.last[1]


class Bare:
    """A bundle's networks in a process like a sampler's, without a pipeline (an actor)."""

    def __init__(self, packed: dict[str, bytes], sampling: config.Sampling) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.sampler = Sampler(bundle.unpack(packed, Path(folder)), sampling)

    @torch.inference_mode()
    def loop(self, sides: Sequence[int], seconds: float) -> float:
        """Base forwards per second of the image U-Net on fixed inputs, a micro-batch of each side in turn."""
        sampler, facts = self.sampler, self.sampler.bundle.facts
        unet, base = sampler.bundle.image_unet, facts.image_patch
        assert unet is not None
        batches = {}
        for side in set(sides):
            rows = denoise.batch_size(sampler.sampling.batch, base, (side, side))
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
        unet = sampler.bundle.image_unet
        assert unet is not None

        def network(*given: torch.Tensor) -> torch.Tensor:
            return unet(*(tensor.to(sampler.device) for tensor in given))

        schedule = sampler.bundle.schedule
        began = time.perf_counter()
        latents, forwards = paper_sampler(
            network, facts.image_channels, facts.image_patch, schedule, on_latents, steps, total
        )
        seconds = time.perf_counter() - began
        began = time.perf_counter()
        png(decode.decode(sampler.bundle.codec.decode, latents.numpy(), facts.factor, sampler.tiling))
        share = len(steps) / total  # decoding is done once per image, not once per step
        return forwards, seconds + share * (time.perf_counter() - began)


@contextmanager
def bare_actors(folder: Path, sampling: config.Sampling, number: int) -> Iterator[list[Any]]:
    """Processes with the resources of a sampler, ready."""
    import ray

    gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
    make = ray.remote(num_cpus=sampling.threads, num_gpus=gpus, runtime_env=actor_runtime_env(bool(gpus)))(
        Bare
    )
    actors = [make.remote(bundle.pack(folder), sampling) for _ in range(number)]
    try:
        ray.get([actor.__ray_ready__.remote() for actor in actors])
        yield actors
    finally:
        for actor in actors:
            ray.kill(actor)


def bare_rate(folder: Path, plan: Plan, size: tuple[int, int], number: int, seconds: float) -> float:
    """Base forwards per second of so many bare loops side by side."""
    import ray

    covers = plan.model("image").covers(*size, 0)
    sides = [covers.side(step) for step in range(plan.steps)]
    with bare_actors(folder, plan.sampling, number) as actors:
        return float(sum(ray.get([actor.loop.remote(sides, seconds) for actor in actors])))
