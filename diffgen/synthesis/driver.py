"""`diffgen synthesize`: plan, claim the folder, make what is missing, write shards, merge.

The driver holds no data: samples go from the coordinator to the writer. It notices lost actors,
replaces them and reports. A run that is stopped anywhere is resumed by the same command.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from diffgen import config, progress
from diffgen.cluster import on_gpus
from diffgen.errors import IncompleteError, UserError
from diffgen.lock import held
from diffgen.models import bundle, device
from diffgen.sampling import time_map
from diffgen.storage import Folder
from diffgen.synthesis import snapshots
from diffgen.synthesis.backlog import Backlog, Report, claim
from diffgen.synthesis.leases import Status
from diffgen.synthesis.plan import Plan, make_plan
from diffgen.synthesis.run_record import SETTINGS
from diffgen.synthesis.sampler import Sampler
from diffgen.synthesis.shards import num_shards

EACH = 8  # samplers, up to so many, are shown one by one


def dry_run(
    folder: Path,
    settings: config.Settings,
    masks: Path | None,
    console: Console,
    references: Sequence[Path] = (),
) -> None:
    """Print what `synthesize` will take: forwards, time, GPU-hours, bytes, requests. Nothing is written."""
    from diffgen.synthesis.forecast import forecast, gpu_hours, store  # late: it loads the models

    packed, of_run = bundle.pack(folder), settings.synthesis
    works_on, n = _device(settings, inline=True), of_run.n
    plan = make_plan(packed, folder, settings, masks, references, works_on, console)
    with console.status("reading the bundle") as line:
        cost = forecast(plan, packed, n, of_run.in_flight, line.update, of_run.images_per_shard)
    table = Table("of this run", "", box=None, show_header=False, padding=(0, 2))
    about = "" if cost.exact else "about "
    table.add_row("images", f"{n}")
    if cost.halo is not None:
        table.add_row("region", cost.halo.text)
    table.add_row("forwards", f"{about}{cost.forwards}")
    table.add_row("per image, per megapixel", f"{cost.per_image:.1f}, {cost.per_megapixel:.1f}")
    table.add_row(
        "time", f"{timedelta(seconds=round(cost.seconds))} of one sampler on this machine, denoising"
    )
    table.add_row("GPU-hours", gpu_hours(cost, works_on, of_run.gpu_tflops))
    table.add_row("disk", f"about {decimal(round(cost.disk_bytes))}")
    if "://" in settings.places.out:
        table.add_row("store", store(cost))
    table.add_row("coordinator", f"up to {decimal(round(cost.coordinator_bytes))} of canvases")
    table.add_row("sampler", f"{decimal(round(cost.weights_bytes))} of weights, and its activations")
    console.print(table)


@dataclass(frozen=True)
class Summary:
    """What a run did."""

    made: int
    already: int
    shards: int
    seconds: float
    status: Status
    out: str
    megapixels: float = 0.0
    """Of the images painted in this run."""


def synthesize(
    folder: Path,
    out: str,
    settings: config.Settings,
    masks: Path | None,
    inline: bool,
    console: Console,
    time_maps: bool = False,
    references: Sequence[Path] = (),
    watch: Report = lambda _: None,
) -> Summary:
    """Images 0 … n − 1 of a bundle as WebDataset shards under `out`, a folder or any filesystem URL.

    `watch` is called with the run's figures after each lease, or several times a second on Ray.

    Raises `UserError` before any work where bundle, size, label maps or folder do not fit, and
    `IncompleteError` at the end, when all else is written, if an image came out not finite;
    `KeyboardInterrupt` passes, with all shards whole.
    """
    packed = bundle.pack(folder)
    works_on = _device(settings, inline)
    settings = settings.on(works_on != "cpu")
    plan = make_plan(packed, folder, settings, masks, references, works_on, console)
    if time_maps and plan.sampling.cover == "outpaint":
        raise UserError("--save-time-map: sampling.cover=outpaint has no step that the whole canvas takes")
    if time_maps and plan.region is not None:
        raise UserError("--save-time-map: of whole images, not of a --region")
    with held(Folder(out), "--out"):
        backlog = claim(plan, packed, out, settings.synthesis)
        settled = settings.model_copy(update={"synthesis": backlog.settings})
        Folder(out).write_text(SETTINGS, settled.dump())  # now: who looks at the run learns n from it
        began, images, status = time.monotonic(), backlog.images, Status()
        if already := backlog.n - len(images):
            console.print(f"resuming: {already} of {backlog.n} images are already there")
        if images:
            with _shown(console, len(images), watch) as report:
                if inline:
                    status = run_inline(backlog, report)
                else:
                    from diffgen.synthesis.pool import run_on_ray  # late: a machine without Ray has --inline

                    status = run_on_ray(backlog, report)
        writer = backlog.writer()
        writer.begin(backlog.total)
        writer.finish(backlog.total, plan.labels)
        snapshots.clear(writer.store)
        if time_maps:
            save_time_maps(plan, backlog.n, writer.store, console)
    if failed := writer.failed(backlog.total):
        raise IncompleteError(
            f"{len(failed)} of {backlog.total} samples are not in {writer.store.url}, as manifest.parquet "
            f"says (`failed`): {failed[min(failed)]}"
        )
    shards = num_shards(backlog.total, backlog.per_shard)
    megapixels = sum(height * width for height, width in map(plan.made_size, images)) / 1e6
    return Summary(
        len(images), already, shards, time.monotonic() - began, status, writer.store.url, megapixels
    )


def run_inline(backlog: Backlog, report: Report) -> Status:
    """Make and write what the backlog lacks in this process, without Ray; the final figures."""
    coordinator, writer = backlog.coordinator(), backlog.writer()
    with tempfile.TemporaryDirectory() as unpacked:
        sampler = Sampler(
            bundle.unpack(backlog.packed, Path(unpacked)), backlog.plan.sampling, backlog.settings.gpu
        )
    written: set[int] = set()
    while not coordinator.over:
        lease = coordinator.lease("inline", backlog.settings.lease)
        coordinator.commit(lease.id, sampler.finish(lease, sampler.compute(lease)))
        status = coordinator.status()
        for k in backlog.ready_shards(status, written):
            samples = coordinator.take(backlog.missing[k])
            writer.complete(k, backlog.total, samples, failed=backlog.failed(k, status))
            coordinator.drop(backlog.missing[k])
            written.add(k)
        report(status)
    return coordinator.status()


def save_time_maps(plan: Plan, n: int, store: Folder, console: Console) -> None:
    """Owners of every step of each image, and a film of L (Fig. 2c), under `time-map/`."""
    for image in progress.each(range(n), console, "time-state maps", "images"):
        height, width = (side // plan.facts.factor for side in plan.size_of(image))
        npz, gif = time_map.record(plan.model("image").covers(height, width, image))
        store.write(f"time-map/{image:09d}.npz", npz)
        store.write(f"time-map/{image:09d}.gif", gif)


def summarise(done: Summary, console: Console) -> None:
    """The run's figures as a table."""
    status, seconds = done.status, max(done.seconds, 1e-9)
    table = Table(box=None, show_header=False, padding=(0, 2))
    an_image, a_megapixel = status.forwards / max(done.made, 1), status.forwards / max(done.megapixels, 1e-9)
    table.add_row(
        "forwards", f"{status.forwards} ({an_image:.1f} per image, {a_megapixel:.1f} per megapixel)"
    )
    table.add_row("forwards per second", f"{status.forwards / seconds:.1f}")
    table.add_row("micro-batches filled", f"{status.rows / max(status.slots, 1):.1%}")
    if status.answer_s:
        table.add_row("coordinator answers within", f"{1000 * status.answer_s:.0f} ms (99 %)")
    for sampler, busy in sorted(status.busy.items()):
        table.add_row(f"{sampler} busy", f"{min(1.0, busy / seconds):.0%}")
    console.print(table)


def _device(settings: config.Settings, inline: bool) -> str:
    """What samplers work on: `cpu`, or the model of the GPUs of this machine, or of the cluster."""
    if inline:
        return device.kind() if on_gpus(settings.gpu, inline) else "cpu"
    from diffgen.synthesis.pool import kind  # late: a machine without Ray has --inline

    return kind(settings.gpu)


@contextmanager
def _shown(console: Console, total: int, watch: Report) -> Iterator[Report]:
    """A bar fed with the coordinator's figures, which `watch` is given too."""
    began = time.monotonic()
    with progress.bar(console) as bar:
        row = bar.add_task("synthesize", total=total, figures="")

        def show(status: Status) -> None:
            watch(status)
            bar.update(row, completed=status.progress, figures=f"images  {figures(status, began)}")

        yield show


def figures(status: Status, began: float) -> str:
    """Rate, filled share of the micro-batches, and each sampler's busy share (or their range)."""
    seconds = max(time.monotonic() - began, 1e-9)
    shares = [min(1.0, busy / seconds) for busy in status.busy.values()] or [0.0]
    each = " ".join(f"{share:.0%}" for share in shares)
    busy = each if len(shares) <= EACH else f"{min(shares):.0%} to {max(shares):.0%}"
    fill = status.rows / max(status.slots, 1)
    return f"{status.forwards / seconds:.0f} forwards/s, fill {fill:.0%}, busy {busy}"
