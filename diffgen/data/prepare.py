"""`diffgen prepare`: slides and images → training shards, labels, statistics and a contact sheet.

Two passes (`pipeline`): one looks at every source (`look`), one cuts the patches; the driver alone writes.
Patches arrive in their order, so the same sources and settings give the same bytes. A source that fails is
named in the report and stops nothing. The folder gets a mark before anything else (`prepare.json`) and is
complete when it holds `statistics.json`. The same command resumes a run that was interrupted (`spool`); in a
complete folder it adds the sources that are new (`earlier`).
"""

import json
import time
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from rich.console import Console

from diffgen import progress
from diffgen.config import Settings
from diffgen.data import contact_sheet, inventory
from diffgen.data import earlier as before
from diffgen.data.cut import cut, cut_jobs
from diffgen.data.fetch import all_fetched, local
from diffgen.data.formats.base import LeftOut
from diffgen.data.look import Looked, found_sources, look
from diffgen.data.pipeline import Pipeline
from diffgen.data.report import Report
from diffgen.data.shards import COMPLETE, PatchWriter, check_folder
from diffgen.data.spool import Spool
from diffgen.errors import UserError
from diffgen.storage import write_text


def prepare(
    sources: Sequence[str],
    out: Path,
    settings: Settings,
    console: Console,
    inline: bool = False,
    dry_run: bool = False,
    shown: str | None = None,
) -> Report:
    """Cut all sources into the folder `out` (see the module), and say at the end what was done.

    On Ray, or `inline` in this process; the bytes are the same. A `dry_run` ends with the table of what would
    be done; `shown` is where the data will be, if not in `out`. Raises `UserError` before any work for a path
    that does not exist, an `out` that holds other things or was prepared with other settings, masks whose
    classes have no names, and contexts that are not there; and when nothing at all could be prepared.
    """
    started = time.monotonic()
    there = before.read(out, settings) if (out / COMPLETE).exists() else before.Earlier()
    report = Report.of(out, there.statistics, there.labels)
    here = [str(local(source, console)) for source in sources]
    new = found_sources(here, out, settings, there, report)
    ready = partial(all_fetched, (*sources, settings.prepare.annotations or ""))
    check_folder(out)
    if there.files and not new:
        console.print(f"nothing new: all {len(there.statistics['sources']):,} sources are in {shown or out}")
        return report
    pipeline = Pipeline(report, console, inline, ready)
    looked = look(new, settings, there, pipeline)
    plans, classes = looked.plans, looked.classes
    rows = inventory.file_rows(plans, report.left_out)
    inventory.print_tables(rows, inventory.class_rows([plan.scan for plan in plans], classes), console)
    if dry_run:
        report.print_notes(console)
        return report
    kind = "mask" if settings.prepare.labels == "maps" else "image"
    with PatchWriter(out, settings.prepare.patches_per_shard, there.rows) as writer:
        _cut(writer, looked, settings, pipeline)
        if not any(row["kind"] == kind for row in writer.rows):
            raise UserError(report.nothing())
    report.count(writer.rows, classes.labels, plans)
    report.stain_model = classes.stain.to_json() if classes.stain else None
    contact_sheet.draw(out, plans, writer.added, classes, settings)
    writer.write_index(out / "patches.parquet")
    write_text(out / "labels.json", json.dumps(report.labels.to_json(), indent=2) + "\n")
    write_text(out / "settings.yaml", settings.dump())
    told = {row.file: row for row in inventory.file_rows(plans, report.left_out)}
    inventory.write_csv(out / inventory.NAME, [*{**told, **there.files}.values()])
    write_text(out / COMPLETE, json.dumps(report.to_json(), indent=2) + "\n")
    report.print(console, time.monotonic() - started, shown or str(out))
    return report


def _cut(writer: PatchWriter, looked: Looked, settings: Settings, pipeline: Pipeline) -> None:
    """Cut what is planned, but for what an interrupted run has cut already."""
    jobs = [job for plan in looked.plans for job in cut_jobs(plan, settings)]
    cut_here = partial(cut, settings=settings, classes=looked.classes)
    of = before.digest_of_run(jobs, settings, looked.classes, len(writer.rows))
    sizes = [0, *accumulate(len(job.patches) for job in jobs)]
    with Spool(writer.out, of) as spool, progress.bar(pipeline.console, transient=True) as bar:
        task = bar.add_task("cutting patches", total=sizes[-1], figures="")

        def take(number: int, made: Any) -> None:
            bar.update(task, completed=sizes[number])
            if isinstance(made, LeftOut):
                pipeline.report.leave_out(str(made), jobs[number].name)
            else:
                writer.write(made)

        done = 0
        for number, made in spool.read():
            take(number, made)
            done = number + 1
        for number, made in pipeline.run(jobs[done:], cut_here, looked.memory):
            spool.add(done + number, made)
            take(done + number, made)
