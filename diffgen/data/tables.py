"""Each source's context and patient: from its folder, or from a CSV as laboratories keep them.

The context is the prompt of the mask model. A table has a column `file` and some of `context`, `patient` (or
`group`) and `split`. A source is looked up by its name in the data set, then by its file's name, then by its
stem, then by the end of a path that the table has; a table may hold more files than there are sources, but
never fewer.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from diffgen.config import Settings
from diffgen.data.fetch import local
from diffgen.data.sources import Source
from diffgen.errors import UserError, one_line

MAX_CONTEXTS = 255  # on a mask canvas a context is an 8-bit id, 0 the null one
COLUMNS = {"context": "context", "patient": "group", "group": "group", "split": "split"}
"""Column of a table → field of a source."""
SPLITS = {"train": "train", "training": "train", "test": "test", "held-out": "test", "held_out": "test"}

DELIMITERS = ",;\t"
"""What parts the columns: the most frequent in the header. Where a comma is decimal Excel writes ";"."""

Row = dict[str, str]
"""Field → value."""


def with_tables(sources: Sequence[Source], settings: Settings) -> list[Source]:
    """The sources with their contexts, groups and splits, by `prepare.contexts` and `prepare.patients`.

    Raises `UserError` for a table that cannot be read, lacks a column, contradicts itself or has no row for a
    source, for a patient on both sides of the split, and for more than 255 contexts.
    """
    kind, patients = settings.prepare.contexts, settings.prepare.patients
    found = list(sources)
    if patients is not None:
        found = _from_table(found, "prepare.patients", patients, ())
        _check_split(found, patients)
    if kind == "folder":
        found = [replace(source, context=source.folder) for source in found]
    elif kind != "one":
        found = _from_table(found, "prepare.contexts", kind, ("context",))
    number = len({source.context for source in found})
    if number > MAX_CONTEXTS:
        raise UserError(f"prepare.contexts {kind}: {number} contexts, at most {MAX_CONTEXTS} fit")
    return found


def _from_table(sources: Sequence[Source], setting: str, path: str, needed: Iterable[str]) -> list[Source]:
    table = read_table(setting, local(path), needed)
    ends: dict[str, list[str]] = {}
    for file in table:
        ends.setdefault(PurePosixPath(file).name, []).append(file)
    rows: list[Any] = [_look_up(source, table, ends, f"{setting} {path}") for source in sources]
    return [replace(source, **row) for source, row in zip(sources, rows, strict=True)]


def _check_split(sources: Sequence[Source], path: str) -> None:
    """`UserError` where a patient's slides are said to be on both sides."""
    sides: dict[str, Source] = {}
    for source in sources:
        if source.split is not None and source.group:
            first = sides.setdefault(source.group, source)
            if first.split != source.split:
                raise UserError(
                    f"prepare.patients {path}: patient {source.group} is on both sides of the split: "
                    f"{first.name} in {first.split}, {source.name} in {source.split}"
                )


def read_table(setting: str, path: Path, needed: Iterable[str]) -> dict[str, Row]:
    """`file` → its row, of a CSV (UTF-8, with a header). Raises `UserError`, with the line's number."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, strict=True, delimiter=max(DELIMITERS, key=header.count))
            reader.fieldnames = columns = [name.strip().lower() for name in reader.fieldnames or ()]
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        what = "neither one, folder nor" if setting == "prepare.contexts" else "not"
        raise UserError(f"{setting} {str(path)!r}: {what} a readable CSV ({one_line(error)})") from error
    for column in ("file", *needed):
        if column not in columns:
            raise UserError(f"{setting} {path}: no column {column!r} in its header {columns}")
    used = [column for column in COLUMNS if column in columns]
    if not used:
        raise UserError(f"{setting} {path}: no column of context, patient or split in its header {columns}")
    if twice := sorted({column for column in used if columns.count(column) > 1}):
        raise UserError(f"{setting} {path}: two columns {twice[0]!r} in its header {columns}")
    table: dict[str, Row] = {}
    for line, row in rows:
        if not any(cell.strip() for cell in row.values() if isinstance(cell, str)):  # as spreadsheets leave
            continue
        where = f"{setting} {path}, line {line}"
        for column in used:
            name, value = ((row[key] or "").strip() for key in ("file", column))
            if not name or not value:
                raise UserError(f"{where}: file or {column} is empty")
            name = name.replace("\\", "/")
            if column == "split":
                value = _side(value, where)
            known = table.setdefault(name, {}).setdefault(COLUMNS[column], value)
            if known != value:
                raise UserError(f"{where}: {name} has the {column} {known!r} already")
    return table


def _side(value: str, where: str) -> str:
    if value.lower() not in SPLITS:
        raise UserError(f"{where}: split is train or test, not {value!r}")
    return SPLITS[value.lower()]


def _look_up(source: Source, table: dict[str, Row], ends: dict[str, list[str]], where: str) -> Row:
    name = PurePosixPath(source.name).name
    for key in (source.name, name, PurePosixPath(name).stem):
        if key in table:
            return table[key]
    if len(alike := ends.get(name, [])) > 1:
        raise UserError(f"{where}: several rows may be of the source {source.name}: {alike[0]}, {alike[1]}")
    if alike:
        return table[alike[0]]
    raise UserError(f"{where}: no row for the source {source.name}")
