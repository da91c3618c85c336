"""The most memory of coordinator, sampler and writer, each a process."""

import multiprocessing
import tempfile
import time
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from benchmarks.synthesis.coordinator import paper_plan
from diffgen.models import bundle
from diffgen.models.autoencoder import LatentCodec, LinearAutoencoder
from diffgen.sampling.canvas import Canvas
from diffgen.sampling.guidance import Guidance
from diffgen.synthesis.backlog import Backlog, claim
from diffgen.synthesis.plan import Plan
from diffgen.synthesis.sampler import PatchModel, Sampler


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
    arrays: list[Any] = [canvas.latents, canvas.noise, canvas.time_state, canvas.label_map]
    arrays += [cover.owner, cover.boxes]
    kept = [
        item
        for history in canvas.histories
        for value in history.values()
        for item in (value if isinstance(value, list) else [value])
        if isinstance(item, torch.Tensor)
    ]
    return sum(a.nbytes for a in arrays if a is not None) + sum(t.numel() * t.element_size() for t in kept)


def serve(task: Backlog, pipes: list[Connection]) -> None:
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
                pipe.send({"base": base, "peak": most_mb(), "bytes_per_latent_pixel": most})
                pipes.remove(pipe)
                if not pipes:
                    return
                continue
            pipe.send(getattr(coordinator, method)(*arguments))
            for job in coordinator.jobs.values():
                if job.stage == "image" and job.canvas and turns.get(job.index) != job.turn:
                    turns[job.index] = job.turn
                    pixels = job.canvas.label_map.size
                    most = max(most, canvas_bytes(job.canvas) / pixels)


def trivial_sampler(plan: Plan) -> Sampler:
    """The command's sampler; its U-Nets give zeros, its decoder enlarges and adds a texture."""
    sampler, facts = Sampler.__new__(Sampler), plan.facts
    sampler.tiling = plan.tiling
    codec = LatentCodec(LinearAutoencoder(facts.factor, facts.image_channels))
    side = plan.sampling.decode_tile * facts.factor
    texture = 0.03 * torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))

    def decoder(latents: torch.Tensor) -> torch.Tensor:
        large = latents[:, :3].repeat_interleave(facts.factor, 2).repeat_interleave(facts.factor, 3)
        return (0.2 * large).add_(texture[..., : large.shape[2], : large.shape[3]])

    codec.decode = decoder  # type: ignore[method-assign]  # in place of a real one
    sampler.device, sampler.sampling, sampler.bf16 = torch.device("cpu"), plan.sampling, False
    sampler.bundle = bundle.Bundle(facts, plan.labels, plan.schedule, codec)

    def zeros(
        latents: torch.Tensor, _t: torch.Tensor, _maps: torch.Tensor, /, *_whole: torch.Tensor
    ) -> torch.Tensor:
        return torch.zeros_like(latents)

    sampler.models = {
        "mask": PatchModel(zeros, facts.mask_patch, Guidance(), "per_label"),
        "image": PatchModel(zeros, facts.image_patch, Guidance(), "joint"),
    }
    return sampler


def pull(task: Backlog, calls: Connection, end: Connection) -> None:
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
        calls.send(("commit", (lease.id, sampler.finish(lease, sampler.compute(lease)))))
        calls.recv()
    calls.send(("stop", ()))
    calls.recv()
    end.send({"base": base, "peak": most_mb()})


def paint(task: Backlog, end: Connection, calls: Connection) -> None:
    """The writer's process: takes what a shard lacks when it is there, as the driver does."""
    base, writer = most_mb(), task.writer()
    writer.begin(task.total)
    written: set[int] = set()

    def call(method: str, *arguments: Any) -> Any:
        calls.send((method, arguments))
        return calls.recv()

    while True:
        status = call("status")
        for k in task.ready_shards(status, written):
            samples = call("take", task.missing[k])
            writer.complete(k, task.total, samples, failed=task.failed(k, status))
            call("drop", task.missing[k])
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
        "bytes_per_latent_pixel": coordinator["bytes_per_latent_pixel"],
        "rss_bytes_per_latent_pixel": (coordinator["peak"] - coordinator["base"]) * 2**20 / pixels,
        "seconds": time.monotonic() - began,
    }  # fmt: skip


def show_memory(found: dict[str, Any]) -> Table:
    table = Table(
        "image", "coordinator MB", "sampler MB", "writer MB", "canvas bytes per latent pixel", "of RSS", "s",
        title="most memory (before the work)",
    )  # fmt: skip
    for side, row in found.items():
        cells = [
            f"{row[name]:.0f} ({row['before'][name]:.0f})" for name in ("coordinator", "sampler", "writer")
        ]
        canvas = f"{row['bytes_per_latent_pixel']:.1f} (goal {16 * 4 + 8})"
        rss = f"{row['rss_bytes_per_latent_pixel']:.0f}"
        table.add_row(f"{side}²", *cells, canvas, rss, f"{row['seconds']:.0f}")
    return table
