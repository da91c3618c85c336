"""`diffgen synthesize`: plan, claim the folder, paint what is missing, write shards, merge.

The driver holds no data: samples go from the coordinator to the writer. It notices lost actors,
replaces them and reports. A run that is stopped anywhere is resumed by the same command.
"""

import time
from collections.abc import Callable, Iterator, Sequence
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
from diffgen.models import bundle, device
from diffgen.sampling import time_map
from diffgen.synthesis import snapshots
from diffgen.synthesis.backlog import Backlog, Report, claim
from diffgen.synthesis.leases import Status
from diffgen.synthesis.lock import held
from diffgen.synthesis.plan import Plan, make_plan
from diffgen.synthesis.shards import num_shards
from diffgen.synthesis.store import Store

EACH = 8  # samplers, up to so many, are shown one by one


def dry_run(
    folder: Path,
    settings: config.Settings,
    masks: Path | None,
    console: Console,
    references: Sequence[Path] = (),
) -> None:
    """Print what `synthesize` will take: forwards, time, disk, memory. Nothing is written."""
    from diffgen.synthesis.forecast import forecast  # late: it loads the models

    packed = bundle.pack(folder)
    plan = make_plan(packed, folder, settings, masks, references, _device(settings, inline=True), console)
    n = settings.synthesis.n
    with console.status("reading the bundle") as shown:
        told = forecast(plan, packed, n, settings.synthesis.in_flight, shown.update)
    table = Table("of this run", "", box=None, show_header=False, padding=(0, 2))
    about = "" if told.exact else "about "
    table.add_row("images", f"{n}")
    table.add_row("forwards", f"{about}{told.forwards}")
    table.add_row("per image, per megapixel", f"{told.per_image:.1f}, {told.per_megapixel:.1f}")
    table.add_row(
        "time", f"{timedelta(seconds=round(told.seconds))} of one sampler on this machine, denoising"
    )
    table.add_row("disk", f"about {decimal(round(told.disk_bytes))}")
    table.add_row("coordinator", f"up to {decimal(round(told.coordinator_bytes))} of canvases")
    table.add_row("sampler", f"{decimal(round(told.weights_bytes))} of weights, and its activations")
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
) -> Summary:
    """Images 0 … n − 1 of a bundle as WebDataset shards under `out`, a folder or any filesystem URL.

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
    with held(Store(out)):
        return _fill(claim(plan, packed, out, settings.synthesis), settings, inline, console, time_maps)


def _fill(
    backlog: Backlog, settings: config.Settings, inline: bool, console: Console, time_maps: bool
) -> Summary:
    """Paint and write what a claimed folder lacks, and describe the whole."""
    plan = backlog.plan
    began, made = time.monotonic(), len(backlog.images)
    if already := backlog.n - made:
        console.print(f"resuming: {already} of {backlog.n} images are already there")
    status = Status()
    if made:
        with _shown(console, made) as show:
            status = _painter(inline)(backlog, show)
    writer = backlog.writer()
    writer.begin(backlog.total)
    writer.store.write("settings.yaml", settings.dump().encode())
    writer.finish(backlog.total, plan.labels)
    snapshots.clear(writer.store)
    if time_maps:
        save_time_maps(plan, backlog.n, writer.store, console)
    if failed := writer.failed(backlog.total):
        raise IncompleteError(
            f"{len(failed)} of {backlog.total} samples are not in {writer.store.url}, as manifest.parquet "
            f"says (`failed`): {failed[min(failed)]}"
        )
    shards = num_shards(backlog.total, settings.synthesis.images_per_shard)
    megapixels = sum(height * width for height, width in map(plan.size_of, backlog.images)) / 1e6
    return Summary(made, already, shards, time.monotonic() - began, status, writer.store.url, megapixels)


def save_time_maps(plan: Plan, n: int, store: Store, console: Console) -> None:
    """Owners of every step of each image, and a film of L (Fig. 2c), under `time-map/`."""
    with progress.bar(console, transient=True) as bar:
        row = bar.add_task("time-state maps", total=n, figures="images")
        for image in range(n):
            height, width = (side // plan.facts.factor for side in plan.size_of(image))
            covering = plan.model("image").covering(height, width, image)
            npz, gif = time_map.record(covering)
            store.write(f"time-map/{image:09d}.npz", npz)
            store.write(f"time-map/{image:09d}.gif", gif)
            bar.advance(row)


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
    for sampler, busy in sorted(status.busy.items()):
        table.add_row(f"{sampler} busy", f"{min(1.0, busy / seconds):.0%}")
    console.print(table)


def _device(settings: config.Settings, inline: bool) -> str:
    """What samplers work on: `cpu`, or the model of the GPUs of this machine, or of the cluster."""
    if inline:
        return device.kind() if on_gpus(settings.gpu, inline) else "cpu"
    from diffgen.synthesis.pool import kind  # late: a machine without Ray has --inline

    return kind(settings.gpu)


def _painter(inline: bool) -> Callable[[Backlog, Report], Status]:
    if inline:
        from diffgen.synthesis.inline import run_inline

        return run_inline
    from diffgen.synthesis.pool import run_on_ray  # late: a machine without Ray has --inline

    return run_on_ray


@contextmanager
def _shown(console: Console, total: int) -> Iterator[Report]:
    """A bar fed with the coordinator's figures."""
    began = time.monotonic()
    with progress.bar(console) as bar:
        row = bar.add_task("synthesize", total=total, figures="")

        def show(status: Status) -> None:
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
