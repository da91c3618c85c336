"""`diffgen filter`: which synthetic images others should learn from, and which of their pixels.

Nothing is deleted: what is decided stands in a manifest of its own, and shards of what is kept are written
elsewhere on wish. Invariants: decisions depend on seed, bundle, settings and real data alone, not on the
number of workers, nor on what was stopped on the way; a set that grows changes none of them.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from diffgen import config
from diffgen.cluster import on_gpus
from diffgen.curation import decide, output
from diffgen.curation.agreement import WrongPixels
from diffgen.curation.decide import Decision, Figures
from diffgen.curation.duplicates import first_alike
from diffgen.curation.measure import Measuring, read
from diffgen.curation.output import Curated
from diffgen.errors import IncompleteError, UserError, counted
from diffgen.evaluation.sets import real_sets
from diffgen.evaluation.tasks import Workers
from diffgen.export.shard_set import ShardSet
from diffgen.lock import held
from diffgen.storage import Folder
from diffgen.synthesis import driver


@dataclass(frozen=True)
class Wanted:
    """Where a filter writes beside the run's own folder."""

    shards: str | None = None
    """Folder or URL for shards of what is kept."""
    maps: Path | None = None
    """Folder for label maps, each as often as it should be filled again."""
    images: int | None = None
    """So many images are kept at most, the first ones."""


@dataclass(frozen=True)
class Judged:
    """A run with what was decided."""

    run: Measuring
    table: Any
    """Its manifest with the columns of `output.COLUMNS`."""
    curated: Curated
    facts: dict[str, Any]
    """What the decisions depend on, beside the run."""


def filter_run(
    where: str, real: str, settings: config.Settings, wanted: Wanted, work: Path | None, inline: bool,
    console: Console,
) -> Curated:  # fmt: skip
    """Judge the samples of a finished run at `where` against `real` images, and write what comes of it.

    Raises `UserError`, before any work, where the sets cannot be compared.
    """
    judged = judge_run(where, real, settings, wanted.images, work, inline, console)
    write(judged, real, wanted, console)
    return judged.curated


def judge_run(
    where: str, real: str, settings: config.Settings, images: int | None, work: Path | None, inline: bool,
    console: Console,
) -> Judged:  # fmt: skip
    """Figures and decisions; of those kept the first `images`. Written is the work folder alone."""
    if "://" in where and work is None and not inline:
        # What tasks on other nodes wrote into its working folder would stay there: this process does it all.
        console.print("measured in this process, as a run behind a URL is where no --work is given")
        inline = True
    settings = settings.on(on_gpus(settings.gpu, inline))
    shards = ShardSet(where)
    training, held_out = real_sets(real, None, settings.evaluation, console)
    table = pq.read_table(io.BytesIO(shards.folder.read("manifest.parquet"))).sort_by("index")
    made = table.filter(pc.is_null(table["failed"])) if "failed" in table.column_names else table
    workers = Workers(settings.evaluation.threads, settings.evaluation.gpu, inline, console)
    run = Measuring(shards, made, training, held_out, settings, work or work_folder(where), workers)
    run.check()
    run.work.mkdir(parents=True, exist_ok=True)
    with held(Folder(str(run.work)), "--work"):
        found, least, likes = run.figures()
        every, decisions, weights = _decided(run, table, found, least, likes, images)
        figures = output.with_decisions(table, every, decisions, weights)
        return Judged(run, figures, _summary(run, every, decisions), _facts(run, least))


def write(judged: Judged, real: str, wanted: Wanted, console: Console) -> None:
    """Manifest, record and card in the run's folder; shards and label maps where they are wanted."""
    run, curated, facts, name = judged.run, judged.curated, judged.facts, PurePosixPath(real.rstrip("/")).name
    folder = run.shards.folder
    record = {**facts, "images": curated.all, "kept": curated.kept, "left_out": dict(curated.counts)}
    record |= {"unknown_pixels": curated.unknown, "real_images": name}
    output.write_manifest(folder, judged.table, record)
    out = PurePosixPath(folder.url).name
    said = f"Nothing is deleted; `diffgen filter {out} --shards FOLDER` writes the kept ones by themselves."
    output.put_section(folder, output.section(curated, name, said))
    if wanted.shards and curated.kept:
        wrong = WrongPixels(run.agreement_jobs()) if "agreement" in facts["settings"]["checks"] else None
        output.write_shards(run.shards, judged.table, wrong, facts, wanted.shards, console)
        output.write_manifest(Folder(wanted.shards), judged.table, record)
        said = "Here are the kept ones alone, under the keys they had, with such pixels unknown."
        output.put_section(Folder(wanted.shards), output.section(curated, name, said))
    if wanted.maps:
        files = output.write_maps(run.shards, judged.table, wanted.maps, console)
        console.print(f"label maps: {files} files in {wanted.maps}, for diffgen synthesize --masks")


def synthesize_kept(
    bundle: Path, out: str, real: str, settings: config.Settings, masks: Path | None, inline: bool,
    console: Console, references: Sequence[Path] = (),
) -> tuple[driver.Summary, str]:  # fmt: skip
    """Synthesise until n images are kept by the filter; what was done last, and where their shards are.

    Images are drawn by their index, and one that is left out is replaced by the next. At most
    `filter.attempts` × n are drawn: then `IncompleteError`, when all else is written.
    """
    n, most = settings.synthesis.n, settings.synthesis.n * settings.filter.attempts
    if settings.synthesis.emit == "tiles":
        raise UserError(
            "--filter judges whole images: leave --emit tiles out, or use diffgen filter afterwards"
        )
    console.print(f"filter: up to {most} images are drawn, until {n} are kept (filter.attempts)")
    drawn, done, failed = n, None, None
    while True:
        synthesis = settings.synthesis.model_copy(update={"n": drawn})
        asked = settings.model_copy(update={"synthesis": synthesis})
        try:
            done = driver.synthesize(bundle, out, asked, masks, inline, console, False, references)
        except IncompleteError as error:  # others are drawn in place of what could not be made
            failed = error
            console.print(f"[yellow]left out[/]: {error}")
        judged = judge_run(out, real, settings, n, None, inline, console)
        kept = judged.curated.kept
        console.print(f"filter: {kept} of {judged.curated.all} images are kept")
        if kept >= n or drawn >= most:
            break
        rate = max(kept / drawn, 1 / settings.filter.attempts)
        drawn = min(most, drawn + math.ceil((n - kept) / rate))
    write(judged, real, Wanted(filtered(out)), console)
    if kept < n:
        raise IncompleteError(
            f"{counted(kept, 'image')} of {n} kept: {drawn} were drawn, and filter.attempts="
            f"{settings.filter.attempts} allows no more; {out}/{output.MANIFEST} says why"
        )
    if done is None:
        raise failed or AssertionError("neither done nor failed")
    return done, filtered(out)


def filtered(out: str) -> str:
    """Where the kept images of a run go that is filtered at once."""
    return f"{out.rstrip('/')}-filtered"


def work_folder(where: str) -> Path:
    """What is computed of a run lies beside it, of one behind a URL in the working folder."""
    place = PurePosixPath(where.rstrip("/"))
    return Path(f"{place.name}-filter-work") if "://" in where else Path(f"{place}-filter-work")


def _decided(
    run: Measuring, table: Any, found: list[Figures], least: float, likes: list[Any], wanted: int | None
) -> tuple[list[Figures], list[Decision], list[int | None]]:
    """Of every row of the manifest, also of samples that could not be made."""
    most = run.settings.filter.disagreement
    alone = np.array([decide.decide(one, most, least).keep for one in found], bool)
    repeated = first_alike(likes, alone)
    found = [
        one if of < 0 else replace(one, duplicate_of=found[of].key)
        for one, of in zip(found, repeated.tolist(), strict=True)
    ]
    by_key = {one.key: one for one in found}
    failed = table["failed"].to_pylist() if "failed" in table.column_names else [None] * len(table)
    every = [
        by_key.get(key, Figures(key, failed=why))
        for key, why in zip(table["key"].to_pylist(), failed, strict=True)
    ]
    decisions = decide.only_first([decide.decide(one, most, least) for one in every], wanted)
    weights: dict[str, int] = {}
    if "agreement" in run.settings.filter.checks:
        rows = run.manifest.select(["key", "mask_sha256", "class_shares"]).to_pylist()
        hard = decide.hardness(
            np.array([row["class_shares"] for row in rows], float), run.segmenter.class_means("cpu")
        )
        of = decide.weights(hard, [row["mask_sha256"] for row in rows]).tolist()
        weights = {row["key"]: weight for row, weight in zip(rows, of, strict=True)}
    return every, decisions, [weights.get(one.key) for one in every]


def _summary(run: Measuring, every: Sequence[Figures], decisions: Sequence[Decision]) -> Curated:
    kept, unknown = {of.key for of, one in zip(every, decisions, strict=True) if one.keep}, None
    if "agreement" in run.settings.filter.checks:
        rows = [row for job in run.agreement_jobs() for row in read(job, ["key", "known", "wrong"])]
        known = sum(row["known"] for row in rows if row["key"] in kept)
        unknown = sum(row["wrong"] for row in rows if row["key"] in kept) / max(known, 1)
    return Curated(len(decisions), len(kept), decide.counts(decisions), unknown)


def _facts(run: Measuring, least: float) -> dict[str, Any]:
    """What the decisions depend on beside the run, without anything of this machine or of names."""
    settings, how, held_out = run.settings, run.settings.evaluation, run.held_out
    return {
        "settings": settings.filter.model_dump(mode="json", exclude={"attempts"}),
        "segmenter": how.downstream.model_dump(
            mode="json", include={"steps", "batch", "lr", "width", "side"}
        ),
        "features": {"backbone": how.backbone, "jpeg": how.jpeg, "side": run.side},
        "real": {"training": run.training.digest, "held_out": held_out and held_out.digest},
        "least_density": least,
    }
