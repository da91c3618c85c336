"""`diffgen prepare`: slides and images → training shards, labels, statistics and a contact sheet.

Two pipelines (`pipeline`): one looks at every source, one cuts the patches; between them the driver decides
on classes, stains and the split, and it alone writes. Rows arrive in their order, so the same sources and
settings give the same bytes. A source that fails is named in the report and stops nothing. The folder
gets a mark before anything else (`prepare.json`) and is complete when it holds `statistics.json`; the same
command starts a run that was interrupted afresh.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from diffgen import progress
from diffgen.config import Settings
from diffgen.data import contact_sheet, showcase, stain
from diffgen.data.contexts import contexts_of, groups_of
from diffgen.data.cut import CutJob, EncodedPatch, Recipe, cut, cut_jobs
from diffgen.data.pipeline import Pipeline, in_process, on_ray
from diffgen.data.plan import SourcePlan, layout_of, plan_patches
from diffgen.data.report import LeftOuts, Report, class_shares, leading
from diffgen.data.scan import Classes, Scan, decide_classes, scan
from diffgen.data.shards import COMPLETE, PatchWriter, check_folder
from diffgen.data.slides import LeftOut
from diffgen.data.sources import Source, find_sources
from diffgen.errors import UserError
from diffgen.files import atomic, write_text
from diffgen.labels import Labels


def prepare(
    sources: Sequence[str], out: Path, settings: Settings, console: Console, inline: bool = False
) -> Report:
    """Cut all sources into the folder `out` (see the module), and say at the end what was done.

    On Ray, or `inline` in this process; the bytes are the same.
    Raises `UserError` before any work for a path that does not exist, an `out` that is prepared already
    or holds other things, masks whose classes have no names, and contexts that are not there; and when
    nothing at all could be prepared.
    """
    started = time.monotonic()
    maps = settings.prepare.labels == "maps"
    found, twice = find_sources(sources, out, maps)
    check_folder(out)
    classes, found, notes = decide_classes(found, settings)
    contexts = contexts_of(found, settings)
    left = LeftOuts()
    for name in twice:
        left.add("the same file as another", name)
    run = in_process if inline else on_ray
    scans = _scan_all(found, settings, classes, left, console, run)
    _name_unnamed(scans, classes, settings, left)
    model = _fit(scans, notes)
    plans = plan_patches(scans, settings, bool(model), left, notes, groups_of(found, settings))
    recipe = _recipe(settings, classes, model)
    labels = _with_contexts(classes.labels, plans, contexts)
    recipe = replace(recipe, labels=labels)
    with PatchWriter(out, settings.prepare.patches_per_shard) as writer:
        pictures = _cut_all(plans, recipe, contexts, settings, writer, left, console, run)
        if not any(row["kind"] == ("mask" if maps else "image") for row in writer.rows):
            raise UserError(f"nothing could be prepared ({left.first()})")
    report = _report(out, _with_shares(labels, writer.rows), plans, writer.rows, left, notes, model)
    report = replace(report, seconds=time.monotonic() - started)
    _write(report, writer, settings)
    pairs = {kind: showcase.pairs(plans, pictures[kind], recipe, settings) for kind in ("image", "mask")}
    with atomic(out / "contact_sheet.png") as file:
        overviews = showcase.overviews(plans, recipe, settings)
        contact_sheet.draw(file, report.labels, overviews, pairs["image"], pairs["mask"])
    write_text(out / COMPLETE, json.dumps(report.to_json(), indent=2) + "\n")
    report.print(console)
    return report


# --- the first pipeline ---------------------------------------------------------------------------------


def _scan_all(
    sources: Sequence[Source],
    settings: Settings,
    classes: Classes,
    left: LeftOuts,
    console: Console,
    run: Pipeline,
) -> list[Scan]:
    rows = [{"source": json.dumps(vars(source))} for source in sources]
    constants = {"settings": settings, "classes": classes}
    scans = []
    with progress.bar(console, transient=True) as bar:
        task = bar.add_task("looking at sources", total=len(rows), figures="")
        for row, source in zip(run(rows, _scan_row, constants), sources, strict=True):
            bar.advance(task)
            if row["reason"]:
                left.add(row["reason"], source.name)
            else:
                scans.append(_scan_from(row, source))
    if not scans:
        raise UserError(f"nothing could be prepared ({left.first()})")
    return scans


def _scan_row(row: dict[str, Any], settings: Settings, classes: Classes) -> list[dict[str, Any]]:
    empty = {"reason": "", "json": "", "tissue": b"", "stains": b""}
    try:
        found = scan(Source(**json.loads(row["source"])), settings, classes)
    except LeftOut as reason:
        return [empty | {"reason": str(reason)}]
    facts = [
        *found.mpp,
        found.assumed,
        found.width,
        found.height,
        list(found.tissue.shape),
        found.mask_values,
    ]
    stains = b"" if found.stains is None else found.stains.astype("<f4").tobytes()
    return [
        empty | {"json": json.dumps(facts), "tissue": np.packbits(found.tissue).tobytes(), "stains": stains}
    ]


def _scan_from(row: Mapping[str, Any], source: Source) -> Scan:
    x, y, assumed, width, height, shape, values = json.loads(row["json"])
    bits = np.unpackbits(np.frombuffer(row["tissue"], np.uint8), count=shape[0] * shape[1])
    stains = np.frombuffer(row["stains"], "<f4").reshape(-1, 2) if row["stains"] else None
    return Scan(
        source, (x, y), assumed, width, height, bits.reshape(shape).astype(bool), tuple(values), stains
    )


# --- decisions of the driver ----------------------------------------------------------------------------


def _name_unnamed(scans: Sequence[Scan], classes: Classes, settings: Settings, left: LeftOuts) -> None:
    for item in scans:
        for i in classes.unnamed(item, settings.prepare.mask_values):
            left.add(f"class id {i} has no name, its pixels are taken as unknown", item.source.name)


def _fit(scans: Sequence[Scan], notes: list[str]) -> stain.StainModel | None:
    stains = [item.stains for item in scans if item.stains is not None]
    if not stains:
        return None
    model = stain.fit(np.concatenate(stains))
    if model is None:
        notes.append("too little tissue to tell stains apart: nothing is labelled by them")
    return model


def _recipe(settings: Settings, classes: Classes, model: stain.StainModel | None) -> Recipe:
    table = classes.table(settings.prepare.mask_values)
    least = settings.prepare.min_tissue if settings.prepare.labels == "maps" else 0.0
    factor = settings.mask_pixel_px
    return Recipe(
        settings.prepare.mpp, factor, classes.labels, table, model, classes.stain_ids, min_known=least
    )


def _with_contexts(labels: Labels, plans: Sequence[SourcePlan], contexts: Mapping[str, str]) -> Labels:
    """The labels with the contexts of the sources that are used, by name."""
    names = tuple(sorted({contexts[plan.scan.source.name] for plan in plans}))
    return replace(labels, contexts=names, context_shares=(1 / len(names),) * len(names))


def _with_shares(labels: Labels, rows: Sequence[Mapping[str, Any]]) -> Labels:
    """The labels with each context's share of the training images (of all, where none is for training).

    Where there are no images, of the mask patches."""
    kind = leading(rows)
    images = [row for row in rows if row["kind"] == kind]
    counted = [row["context"] for row in images if row["split"] == "train"] or [
        row["context"] for row in images
    ]
    shares = np.bincount(counted, minlength=len(labels.contexts)) / len(counted)
    return replace(labels, context_shares=tuple(float(share) for share in shares))


# --- the second pipeline --------------------------------------------------------------------------------


def _cut_all(
    plans: Sequence[SourcePlan],
    recipe: Recipe,
    contexts: Mapping[str, str],
    settings: Settings,
    writer: PatchWriter,
    left: LeftOuts,
    console: Console,
    run: Pipeline,
) -> dict[str, list[EncodedPatch]]:
    """Cut and write everything; gives back some samples of each kind for the contact sheet."""
    todo = _works(plans, recipe, contexts, settings)
    every = [patch for work in todo for patch in work.patches]
    wanted = showcase.choose(every)
    pictures: dict[str, list[EncodedPatch]] = {"image": [], "mask": []}
    seen = 0
    rows = [{"work": work.to_json()} for work in todo]
    with progress.bar(console, transient=True) as bar:
        task = bar.add_task("cutting patches", total=len(every), figures="")
        for row in run(rows, _cut_row, {"recipe": recipe}):
            if row["kind"] == "end":
                seen += row["place"]
                bar.update(task, completed=seen)
                if row["meta"]:
                    reason, name = json.loads(row["meta"])
                    left.add(reason, name)
                continue
            meta = json.loads(row["meta"])
            sample = EncodedPatch(row["kind"], meta["split"], meta, row["png"] or None, row["mask"] or None)
            writer.write(sample)
            if seen + row["place"] in wanted:
                pictures[sample.kind].append(sample)
    return pictures


def _works(
    plans: Sequence[SourcePlan], recipe: Recipe, contexts: Mapping[str, str], settings: Settings
) -> list[CutJob]:
    layout = layout_of(settings)
    todo = []
    for plan in plans:
        source = plan.scan.source
        context = recipe.labels.contexts.index(contexts[source.name])
        labelled = bool(source.mask or recipe.stain)
        todo += cut_jobs(plan.scan, plan.patches, layout, context, labelled)
    return todo


def _cut_row(row: dict[str, Any], recipe: Recipe) -> list[dict[str, Any]]:
    """The samples of a work, and an end row: how many patches it had and, if it failed, why."""
    work = CutJob.from_json(row["work"])
    end = {"kind": "end", "place": len(work.patches), "meta": "", "png": b"", "mask": b""}
    try:
        samples = cut(work, recipe)
    except LeftOut as reason:
        return [end | {"meta": json.dumps([str(reason), work.source.name])}]
    places = {(str(p.kind), p.x, p.y): i for i, p in enumerate(work.patches)}
    rows = [
        {
            "kind": s.kind,
            "place": places[s.kind, s.meta["x"], s.meta["y"]],
            "meta": json.dumps(s.meta),
            "png": s.png or b"",
            "mask": s.mask or b"",
        }
        for s in samples
    ]
    return [*rows, end]


# --- the end --------------------------------------------------------------------------------------------


def _report(
    out: Path,
    labels: Labels,
    plans: Sequence[SourcePlan],
    rows: Sequence[Mapping[str, Any]],
    left: LeftOuts,
    notes: Sequence[str],
    model: stain.StainModel | None,
) -> Report:
    counts = {kind: dict.fromkeys(("train", "test"), 0) for kind in ("image", "mask")}
    by_source: dict[str, int] = {}
    for row in rows:
        counts[row["kind"]][row["split"]] += 1
        by_source[row["source"]] = by_source.get(row["source"], 0) + 1
    used = {
        plan.scan.source.name: {
            "mpp": list(plan.scan.mpp),
            "assumed": plan.scan.assumed,
            "parts": plan.parts,
            "patches": by_source[plan.scan.source.name],
        }
        for plan in plans
        if plan.scan.source.name in by_source
    }
    shares = class_shares(rows, len(labels))
    stains = model.to_json() if model else None
    return Report(out, labels, used, counts, shares, left.by_reason, tuple(notes), stains)


def _write(report: Report, writer: PatchWriter, settings: Settings) -> None:
    writer.write_index(report.out / "patches.parquet")
    write_text(report.out / "labels.json", json.dumps(report.labels.to_json(), indent=2) + "\n")
    write_text(report.out / "settings.yaml", settings.dump())
