"""The context of each source, the prompt of the mask model: one for all, its folder, or from a table.

A table is the data's metadata as a CSV with the columns `file` and `context`. Sources are looked up by
their name in the data set, then by their file's name, then by its stem; the table may hold more files
than there are sources, but never fewer.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from diffgen.config import Settings
from diffgen.data.sources import Source
from diffgen.errors import UserError, one_line

ONE = "tissue"
"""The context of all sources where there is one."""
GROUP = "group"
"""A column that may be there: sources of one group (a case, a patient) stay on one side of the split."""
MAX_CONTEXTS = 255  # on a mask canvas a context is an 8-bit id, 0 the null one


def contexts_of(sources: Sequence[Source], settings: Settings) -> dict[str, str]:
    """Name of a source → its context, by `prepare.contexts`.

    Raises `UserError` for a table that cannot be read, lacks a column, names a file twice with different
    contexts or has no row for a source, and for more than 255 contexts.
    """
    kind = settings.prepare.contexts
    if kind == "one":
        return {source.name: ONE for source in sources}
    if kind == "folder":
        found = {source.name: source.folder for source in sources}
    else:
        table = read_table(Path(kind))
        found = {source.name: _look_up(source, table, kind) for source in sources}
    number = len(set(found.values()))
    if number > MAX_CONTEXTS:
        raise UserError(f"prepare.contexts {kind}: {number} contexts, at most {MAX_CONTEXTS} fit")
    return found


def groups_of(sources: Sequence[Source], settings: Settings) -> dict[str, str]:
    """Name of a source → its group, by the table of `prepare.contexts`; without one each is its own.

    Raises `UserError` as `contexts_of` does.
    """
    kind = settings.prepare.contexts
    if kind in {"one", "folder"} or GROUP not in _header(Path(kind)):
        return {source.name: source.name for source in sources}
    table = read_table(Path(kind), GROUP)
    return {source.name: _look_up(source, table, kind) for source in sources}


def _header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [name.strip() for name in next(csv.reader(file), [])]


def read_table(path: Path, what: str = "context") -> dict[str, str]:
    """`file` → `context` (or another column) of a CSV (UTF-8, with a header).

    Raises `UserError`, with the line's number.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = [name.strip() for name in reader.fieldnames or ()]
            for column in ("file", what):
                if column not in columns:
                    raise UserError(f"prepare.contexts {path}: no column {column!r} in its header {columns}")
            reader.fieldnames = columns
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"prepare.contexts {str(path)!r}: neither one, folder nor a readable CSV ({one_line(error)})"
        ) from error
    table: dict[str, str] = {}
    for line, row in rows:
        name, value = ((row[column] or "").strip() for column in ("file", what))
        if not name or not value:
            raise UserError(f"prepare.contexts {path}, line {line}: file or {what} is empty")
        if table.setdefault(name, value) != value:
            raise UserError(
                f"prepare.contexts {path}, line {line}: {name} has the {what} {table[name]!r} already"
            )
    return table


def _look_up(source: Source, table: Mapping[str, str], path: str) -> str:
    name = PurePosixPath(source.name).name
    for key in (source.name, name, PurePosixPath(name).stem):
        if key in table:
            return table[key]
    raise UserError(f"prepare.contexts {path}: no row for the source {source.name}")
