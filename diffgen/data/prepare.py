"""`diffgen prepare`: slides and images → training shards, labels, statistics and a contact sheet.

Two pipelines (`pipeline`): one looks at every source, one cuts the patches; between them the driver decides
on classes, stains and the split, and it alone writes. Patches arrive in their order, so the same sources and
settings give the same bytes. A source that fails is named in the report and stops nothing. The folder
gets a mark before anything else (`prepare.json`) and is complete when it holds `statistics.json`; the same
command starts a run that was interrupted afresh.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from diffgen import progress
from diffgen.config import Settings
from diffgen.data import contact_sheet, inventory, stain
from diffgen.data.classes import WHITE, decide_classes, named_by_outlines
from diffgen.data.cut import CutJob, cut, cut_jobs
from diffgen.data.pipeline import run
from diffgen.data.plan import plan_patches
from diffgen.data.report import Report, listed
from diffgen.data.scan import Scan, check_header, memory_of, scan, with_copies
from diffgen.data.shards import COMPLETE, PatchWriter, check_folder
from diffgen.data.slides import LeftOut
from diffgen.data.sources import Source, find_sources, with_outlines
from diffgen.data.tables import with_tables
from diffgen.errors import UserError
from diffgen.storage import write_text

FIRST = 20
"""Sources whose headers are looked at before any work is handed out."""


def prepare(
    sources: Sequence[str],
    out: Path,
    settings: Settings,
    console: Console,
    inline: bool = False,
    dry_run: bool = False,
) -> Report:
    """Cut all sources into the folder `out` (see the module), and say at the end what was done.

    On Ray, or `inline` in this process; the bytes are the same. A `dry_run` ends with the table of what would
    be done. Raises `UserError` before any work for a path that does not exist, an `out` that is prepared
    already or holds other things, masks whose classes have no names, and contexts that are not there; and
    when nothing at all could be prepared.
    """
    started = time.monotonic()
    report = Report(out)
    maps = settings.prepare.labels == "maps"
    there = find_sources(sources, out, maps)
    check_folder(out)
    for name, reason in there.left_out.items():
        report.leave_out(reason, name)
    if there.unread:
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(there.unread.items()))
        report.notes.append(f"files of other kinds are not looked at: {kinds}")
    found = with_outlines(there.sources, settings)
    classes, found = decide_classes(found, settings, report.notes)
    found = with_tables(found, settings)

    _check_scales(found, settings, report)
    most = max((memory_of(source) for source in found), default=0)
    each = partial(_each, report=report, console=console, inline=inline, memory=most)
    constants = {"settings": settings, "classes": classes}
    scans: list[Scan] = list(each("looking at sources", found, [1] * len(found), scan, constants))
    if not scans:
        raise UserError(report.nothing())
    scans, copies = with_copies(scans)
    for name, others in copies.items():
        report.notes.append(f"the same picture as {name}, and on its side of the split: {listed(others)}")
    outlines = (item for item in scans if item.source.outlines)
    classes = named_by_outlines(classes, (name for item in outlines for name in item.amounts), settings)
    for item in scans:
        if unnamed := classes.unnamed(item.mask_values):
            report.leave_out(_unnamed(unnamed), item.source.name)
    _note_profiles(scans, settings, report)
    classes = replace(classes, stain=_stain_model(scans, report))
    plans = plan_patches(scans, settings, classes, report)
    contexts = tuple(sorted({plan.scan.source.context for plan in plans}))
    labels = replace(classes.labels, contexts=contexts, context_shares=(0.0,) * len(contexts))
    classes = replace(classes, labels=labels)
    rows = inventory.file_rows(plans, report.left_out)
    inventory.print_tables(rows, inventory.class_rows([plan.scan for plan in plans], classes), console)
    if dry_run:
        report.print_notes(console)
        return report
    jobs = [job for plan in plans for job in cut_jobs(plan, settings)]
    constants = {"settings": settings, "classes": classes}
    with PatchWriter(out, settings.prepare.patches_per_shard) as writer:
        for patch in each("cutting patches", jobs, [len(job.patches) for job in jobs], cut, constants):
            writer.write(patch)
        if not any(row["kind"] == ("mask" if maps else "image") for row in writer.rows):
            raise UserError(report.nothing())
    report.count(writer.rows, labels, plans)
    report.stain_model = classes.stain.to_json() if classes.stain else None
    writer.write_index(out / "patches.parquet")
    write_text(out / "labels.json", json.dumps(report.labels.to_json(), indent=2) + "\n")
    write_text(out / "settings.yaml", settings.dump())
    inventory.write_csv(out / inventory.NAME, inventory.file_rows(plans, report.left_out))
    contact_sheet.draw(out, plans, writer.rows, classes, settings)
    write_text(out / COMPLETE, json.dumps(report.to_json(), indent=2) + "\n")
    report.print(console, time.monotonic() - started)
    return report


def _each(
    what: str,
    items: Sequence[Source | CutJob],
    sizes: Sequence[int],
    function: Callable[..., Any],
    constants: dict[str, Any],
    report: Report,
    console: Console,
    inline: bool,
    memory: int,
) -> Iterator[Any]:
    """What the function makes of each item, in order, behind a bar; the report names what it cannot."""
    before = [0, *accumulate(sizes)]
    with progress.bar(console, transient=True) as bar:
        task = bar.add_task(what, total=before[-1], figures="")
        for number, made in run(items, function, constants, inline, memory):
            bar.update(task, completed=before[number])
            if isinstance(made, LeftOut):
                report.leave_out(str(made), items[number].name)
            else:
                yield made
        bar.update(task, completed=before[-1])


def _check_scales(sources: Sequence[Source], settings: Settings, report: Report) -> None:
    """`UserError` at once where all of a few sources have no µm per pixel, or cannot be read."""
    for source in sources[:FIRST]:
        try:
            check_header(source, settings)
        except LeftOut as reason:
            report.leave_out(str(reason), source.name)
        else:
            return
    if len(sources) <= FIRST:
        raise UserError(report.nothing())


def _unnamed(ids: Sequence[int]) -> str:
    """What is done with ids without a name, and the remedy."""
    if len(ids) == 1:
        said = f"class id {ids[0]} has no name, its pixels are taken as unknown"
    else:
        said = f"class ids {listed(map(str, ids))} have no name, their pixels are taken as unknown"
    return f"{said} (prepare.mask_values={{{ids[0]}: 1}} makes it class 1)" if max(ids) == WHITE else said


def _note_profiles(scans: Sequence[Scan], settings: Settings, report: Report) -> None:
    """A note where sources have several colour profiles, or some have one and others none."""
    profiles = {item.header.icc for item in scans if item.header}
    if len(profiles) > 1:
        names = ", ".join(sorted(name or "none" for name in profiles))
        done = "applied" if settings.prepare.icc else "not applied (prepare.icc)"
        report.notes.append(f"colour profiles differ, and are {done}: {names}")


def _stain_model(scans: Sequence[Scan], report: Report) -> stain.StainModel | None:
    stains = [item.stains for item in scans if item.stains is not None]
    model = stain.fit(np.concatenate(stains)) if stains else None
    if stains and model is None:
        report.notes.append("too little tissue to tell stains apart: nothing is labelled by them")
    return model
