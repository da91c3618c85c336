"""What a filter writes: a manifest of decisions, a section of the card, shards of kept images, label maps."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from rich.console import Console

from diffgen import progress
from diffgen.curation.agreement import Wrong
from diffgen.curation.decide import KINDS, SURPLUS, Decision, Figures
from diffgen.errors import UserError
from diffgen.evaluation.card import with_section
from diffgen.export.shard_set import ShardSet
from diffgen.lock import held
from diffgen.shards import canonical_json
from diffgen.storage import Folder
from diffgen.synthesis import manifest
from diffgen.synthesis.manifest import Sample
from diffgen.synthesis.run_record import MADE_ON
from diffgen.synthesis.shards import ShardWriter, num_shards, shard_indices

MANIFEST, RECORD = "filter.parquet", "filter.json"
BEGIN, END = "<!-- filter -->", "<!-- /filter -->"
SECTION = """\
{begin}
## What was left out

By `diffgen filter`, against `{real}`: **{kept:,} of {all:,} images are kept**{shown}

{rows}{pixels}`{manifest}` has a row an image: `keep`, `reason`, `weight` (images that its label map should
get when it is filled again: more for harder ones) and the figures. {where}
{end}
"""
COLUMNS = pa.schema(
    [
        ("keep", pa.bool_()),
        ("weight", pa.int64()),
        ("reason", pa.string()),
        ("disagreement", pa.float64()),
        ("loss", pa.float64()),
        ("density", pa.float64()),
        ("copy_ncc", pa.float64()),
        ("copy_of", pa.string()),
        ("duplicate_of", pa.string()),
    ]
)


WrongAt = Callable[[int], Wrong] | None
"""Number of a sample → its pixels that contradict it; None where nothing was judged."""


@dataclass(frozen=True)
class Curated:
    """What a filter came to."""

    all: int
    kept: int
    counts: Mapping[str, int]
    """Images by kind of reason; one may have several."""
    unknown: float | None
    """Share of the known pixels of kept images that became unknown."""

    @property
    def told(self) -> str:
        """Why others are not, for the command line."""
        return "".join(f"; {count} {KINDS[kind]}" for kind, count in self.counts.items())


def with_decisions(
    table: Any, figures: Sequence[Figures], decisions: Sequence[Decision], weights: Sequence[int | None]
) -> Any:
    """The rows of a manifest with what was found and decided."""
    rows = [
        {**vars(of), "keep": one.keep, "reason": one.words, "weight": weight}
        for of, one, weight in zip(figures, decisions, weights, strict=True)
    ]
    more = pa.Table.from_pylist([{name: row[name] for name in COLUMNS.names} for row in rows], schema=COLUMNS)
    for column in COLUMNS.names:
        table = table.append_column(column, more[column])
    return table


def section(found: Curated, real: str, said: str) -> str:
    """Of the dataset card; `said` is where the kept images are."""
    rows = "".join(f"| {count:,} | {KINDS[kind]} |\n" for kind, count in found.counts.items())
    pixels = ""
    if found.unknown is not None:
        pixels = (
            f"Of the labelled pixels of kept images {found.unknown:.1%} contradict the picture, as a "
            "segmenter of real images judges them: they are to be taken for unknown.\n"
        )
    return SECTION.format(
        begin=BEGIN, end=END, real=real, kept=found.kept, all=found.all,
        shown="." if not rows else "; an image may have several reasons.",
        rows=f"| images | reason |\n|---:|---|\n{rows}\n" if rows else "",
        pixels=pixels, manifest=MANIFEST, where=said,
    )  # fmt: skip


def write_manifest(folder: Folder, table: Any, record: Mapping[str, Any]) -> None:
    """`filter.parquet` and `filter.json`, over those of an earlier filter."""
    manifest.write(folder, MANIFEST, table)
    folder.write_text(RECORD, json.dumps(record, indent=2, sort_keys=True) + "\n")


def put_section(folder: Folder, text: str) -> None:
    """Into the card of a folder, where it has one."""
    if (card := folder.read_text("README.md")) is not None:
        folder.write_text("README.md", with_section(card, text, BEGIN, END))


def write_shards(
    shards: ShardSet, table: Any, wrong: WrongAt, facts: Mapping[str, Any], where: str,
    console: Console,
) -> None:  # fmt: skip
    """The kept images under `where`, with label maps in which pixels that contradict them are unknown.

    Keys are those of `shards`; an image that is left out is a row of the manifest that says why. What comes
    after the last one that is needed is left away.
    """
    rows = [row for row in table.to_pylist() if row["reason"] != SURPLUS]
    by_index, total = {row["index"]: row for row in rows}, max(row["index"] for row in rows) + 1
    numbers = {key: number for number, key in enumerate(shards.table["key"].to_pylist())}
    run = {key: value for key, value in shards.run.items() if key not in {MADE_ON, "images_per_shard"}}
    each, made_on = shards.run.get("images_per_shard", 64), shards.run.get(MADE_ON) or [None]
    writer = ShardWriter(where, run | {"filter": facts}, each, made_on=made_on[0], mix=True)
    with held(writer.store, "--shards"), progress.bar(console) as bar:
        try:
            there = writer.begin(total)
        except UserError as error:  # it names the option of another command
            raise UserError(str(error).replace("another --out", "another folder")) from error
        task = bar.add_task(
            "filtered shards", total=num_shards(total, each), completed=len(there), figures=""
        )
        for k in range(num_shards(total, each)):
            if k in there:
                continue
            here = [by_index[index] for index in shard_indices(k, total, each)]
            made = [
                _sample(shards, numbers[row["key"]], row["index"], wrong, facts)
                for row in here
                if row["keep"]
            ]
            writer.write(k, made, {row["index"]: row["reason"] for row in here if not row["keep"]})
            bar.advance(task)
        writer.finish(total, shards.labels)


def _sample(shards: ShardSet, number: int, index: int, wrong: WrongAt, facts: Mapping[str, Any]) -> Sample:
    """A kept sample with its label map as it is to be learned from."""
    record, mask = shards.record(number), shards.file(number, "mask.png")
    record = record | {"run": record["run"] | {"filter": dict(facts)}}
    if wrong is not None and (pixels := wrong(number)).any():
        ids = np.where(pixels, 0, shards.label_map(number)).astype(np.uint8)
        sink = io.BytesIO()
        Image.fromarray(ids).save(sink, "PNG")
        mask = sink.getvalue()
        record = record | {"class_shares": shards.labels.shares(ids)}
    return Sample(index, shards.file(number, "png"), mask, json.loads(canonical_json(record)))


def write_maps(shards: ShardSet, table: Any, folder: Path, console: Console) -> int:
    """Label maps to fill again, each as often as its weight says, as PNG; how many files there are.

    `UserError` where the folder holds other files: they would be filled, too.
    """
    numbers = {key: number for number, key in enumerate(shards.table["key"].to_pylist())}
    rows = {row["mask_sha256"]: row for row in reversed(table.to_pylist()) if row["weight"]}
    names = {
        row["key"]: [f"{row['key']}-{again:02d}.png" for again in range(row["weight"])]
        for row in rows.values()
    }
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {name for those in names.values() for name in those}
    if others := sorted({path.name for path in folder.iterdir()} - wanted):
        raise UserError(f"--maps {folder}: holds {others[0]}, which is not of these label maps")
    for key in progress.each(sorted(names), console, "label maps", "maps"):
        data = shards.file(numbers[key], "mask.png")
        for name in names[key]:
            (folder / name).write_bytes(data)
    return len(wanted)
