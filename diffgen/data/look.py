"""The first of two passes over the sources: what each is, what its labels mean, what is cut from it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from diffgen.config import Settings
from diffgen.data import earlier as before
from diffgen.data import stain
from diffgen.data.classes import WHITE, Classes, decide_classes, named_by_outlines
from diffgen.data.earlier import Earlier
from diffgen.data.formats.base import LeftOut
from diffgen.data.pipeline import Pipeline
from diffgen.data.plan import SourcePlan, plan_patches
from diffgen.data.report import Report, listed
from diffgen.data.scan import Scan, check_header, memory_of, scan, with_copies
from diffgen.data.sources import Source, find_sources, with_outlines
from diffgen.data.tables import with_tables
from diffgen.errors import UserError

FIRST = 20
"""Sources whose headers are looked at before any work is handed out."""


@dataclass(frozen=True)
class Looked:
    """What is to be cut, and as what."""

    plans: list[SourcePlan]
    classes: Classes
    memory: int
    """Bytes that a source may take when it is read."""


def found_sources(
    paths: Sequence[str], out: Path, settings: Settings, there: Earlier, report: Report
) -> list[Source]:
    """The sources that are not in the data yet; the report has all else that was found."""
    found = find_sources(paths, out, settings.prepare.labels == "maps")
    for name, reason in found.left_out.items():
        report.leave_out(reason, name)
    if found.unread:
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(found.unread.items()))
        report.notes.append(f"files of other kinds are not looked at: {kinds}")
    new, known = before.added(found.sources, there)
    if known:
        report.notes.append(f"{known:,} sources are there already and stay as they are")
    return with_tables(with_outlines(new, settings), settings)


def look(sources: Sequence[Source], settings: Settings, there: Earlier, pipeline: Pipeline) -> Looked:
    """Look at all sources and plan what is cut from each. Raises `UserError` where nothing can be."""
    report = pipeline.report
    classes, sources = decide_classes(sources, settings, report.notes)
    _check_headers(sources, settings, report)
    memory = max((memory_of(source) for source in sources), default=0)
    scan_here = partial(scan, settings=settings, classes=classes)
    scans: list[Scan] = list(pipeline.each("looking at sources", sources, scan_here, memory))
    if not scans:
        raise UserError(report.nothing())
    scans, copies = with_copies(
        scans, {digest: row.patient or row.file for digest, row in there.digests.items()}
    )
    for name, others in copies.items():
        report.notes.append(f"the same picture as {name}, and on its side of the split: {listed(others)}")
    classes = before.with_earlier(classes, there)
    outlines = (item for item in scans if item.source.outlines)
    classes = named_by_outlines(classes, (name for item in outlines for name in item.amounts), settings)
    for item in scans:
        if unnamed := classes.unnamed(item.mask_values):
            report.leave_out(_unnamed(unnamed), item.source.name)
    _note_profiles(scans, settings, report)
    classes = replace(classes, stain=there.stain_model or _stain_model(scans, report))
    plans = plan_patches(scans, settings, classes, report, there.sides)
    contexts = before.contexts(there, {plan.scan.source.context for plan in plans})
    labels = replace(classes.labels, contexts=contexts, context_shares=(0.0,) * len(contexts))
    return Looked(plans, replace(classes, labels=labels), memory)


def _check_headers(sources: Sequence[Source], settings: Settings, report: Report) -> None:
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
    return f"{said} (prepare.mask_values={{{WHITE}: 1}} makes it class 1)" if max(ids) == WHITE else said


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
