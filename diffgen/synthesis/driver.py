"""`diffgen synthesize`: plan, claim the folder, paint what is missing, write shards, merge.

The driver holds no data: samples go from the coordinator to the writer. It notices lost actors,
replaces them and reports. A run that is stopped anywhere is gone on with by the same command.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from diffgen import config, progress
from diffgen.errors import UserError
from diffgen.models import bundle
from diffgen.synthesis import snapshots
from diffgen.synthesis.coordinator import Status
from diffgen.synthesis.plan import make_plan
from diffgen.synthesis.shards import num_shards
from diffgen.synthesis.task import Report, Task, claim


@dataclass(frozen=True)
class Summary:
    """What a run did."""

    made: int
    already: int
    shards: int
    seconds: float
    forwards: int
    out: str


def synthesize(
    folder: Path, out: str, settings: config.Settings, masks: Path | None, inline: bool, console: Console
) -> Summary:
    """Images 0 … n − 1 of a bundle as WebDataset shards under `out`, a folder or any filesystem URL.

    Raises `UserError` before any work where bundle, size, label maps or folder do not fit, and at
    the end if an image came out not finite; `KeyboardInterrupt` passes, with all shards whole.
    """
    packed = bundle.pack(folder)
    plan = make_plan(packed, folder, settings, masks)
    task = claim(plan, packed, out, settings.synthesis)
    began, made = time.monotonic(), task.images
    if already := task.n - made:
        console.print(f"going on: {already} of {task.n} images are there already")
    status = Status()
    if made:
        with _shown(console, made) as show:
            status = _painter(inline)(task, show)
    writer = task.writer()
    writer.begin(task.total)
    writer.store.write("settings.yaml", settings.dump().encode())
    try:
        writer.finish(task.total, plan.labels)
    except UserError as error:
        if not status.failed:
            raise
        failed, first = len(status.failed), status.failed[min(status.failed)]
        raise UserError(f"{failed} of {made} images failed, their shards are not written: {first}") from error
    snapshots.clear(writer.store)
    shards = num_shards(task.total, settings.synthesis.images_per_shard)
    return Summary(made, already, shards, time.monotonic() - began, status.forwards, writer.store.url)


def _painter(inline: bool) -> Callable[[Task, Report], Status]:
    if inline:
        from diffgen.synthesis.inline import paint_inline

        return paint_inline
    from diffgen.synthesis.pool import paint_on_ray  # late: a machine without Ray has --inline

    return paint_on_ray


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
    """Rate, filled share of the micro-batches, and each sampler's busy share since `began`."""
    seconds = max(time.monotonic() - began, 1e-9)
    shares = [min(1.0, busy / seconds) for busy in status.busy.values()] or [0.0]
    busy = " to ".join(sorted({f"{min(shares):.0%}", f"{max(shares):.0%}"}))
    fill = status.rows / max(status.slots, 1)
    return f"{status.forwards / seconds:.0f} forwards/s, fill {fill:.0%}, busy {busy}"
