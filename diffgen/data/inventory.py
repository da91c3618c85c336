"""What `prepare` makes of each file and of each class, as two tables, before anything is cut."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from diffgen.data.annotations import class_of
from diffgen.data.classes import Classes
from diffgen.data.plan import SourcePlan
from diffgen.data.scan import Scan
from diffgen.data.sources import identity
from diffgen.storage import write_text

NAME = "sources.csv"
WIDEST = 1000
SHOWN = 20
"""Files printed; all are in the CSV."""


@dataclass(frozen=True)
class FileRow:
    """A file: what it is, and what is done with it."""

    file: str
    format: str = ""
    size: str = ""
    own_mpp: str = ""
    mpp: str = ""
    labels: str = ""
    context: str = ""
    patient: str = ""
    split: str = ""
    identity: str = ""
    """Of the file (`sources.identity`)."""
    digest: str = ""
    """Of its pixels."""
    problem: str = ""


@dataclass(frozen=True)
class ClassRow:
    """A class of outlines or masks: as the files call it, and what it is here."""

    called: str
    name: str
    files: int
    shapes: int
    mm2: float


def file_rows(plans: Sequence[SourcePlan], left_out: Mapping[str, Sequence[str]]) -> list[FileRow]:
    """A row for each file that was found, in the order of their names."""
    problems: dict[str, list[str]] = defaultdict(list)
    for reason, names in left_out.items():
        for name in names:
            problems[name].append(reason)
    rows = {plan.scan.source.name: _row(plan, problems) for plan in plans}
    rows |= {
        name: FileRow(name, problem="; ".join(why)) for name, why in problems.items() if name not in rows
    }
    return [rows[name] for name in sorted(rows)]


def _row(plan: SourcePlan, problems: Mapping[str, list[str]]) -> FileRow:
    scan, header = plan.scan, plan.scan.header
    source = scan.source
    foreign = [f"{share:.1%} is {what}" for what, share in scan.foreign.items()]
    own = header.mpp if header else None
    return FileRow(
        source.name,
        header.format if header else "label map",
        "{}x{}".format(*header.size) if header else "",
        _mpp(own) if own else "",
        _mpp(scan.mpp) + (" assumed" if scan.assumed else ""),
        _labels(scan),
        source.context,
        source.group,
        "+".join(plan.parts),
        identity(Path(source.path)),
        scan.digest,
        "; ".join([*problems.get(source.name, ()), *(header.notes if header else ()), *scan.notes, *foreign]),
    )


def _mpp(mpp: tuple[float, float]) -> str:
    x, y = (f"{value:.4g}" for value in mpp)
    return x if x == y else f"{x} x {y}"


def _labels(scan: Scan) -> str:
    source = scan.source
    if source.mask or source.outlines:
        return Path(source.mask or source.outlines or "").name
    return "stains" if source.stain else ""


def class_rows(scans: Iterable[Scan], classes: Classes) -> list[ClassRow]:
    """A row for each name of outlines and value of masks; the name is empty where it is left out."""
    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    into: dict[str, int | None] = {}
    for scan in scans:
        drawn = scan.source.outlines is not None
        for called, amount in scan.amounts.items():
            if drawn or int(called):
                key = called if drawn else f"value {called}"
                found[key].append((amount.shapes, amount.mm2))
                into[key] = (
                    class_of(called, classes.by_name) if drawn else int(classes.table[int(called)]) or None
                )
    rows = []
    for called in sorted(found, key=lambda key: (into[key] is None, into[key] or 0, key)):
        shapes, areas = zip(*found[called], strict=True)
        class_id = into[called]
        name = "" if class_id is None else classes.labels.classes[class_id]
        rows.append(ClassRow(called, name, len(shapes), sum(shapes), sum(areas)))
    return rows


def print_tables(rows: Sequence[FileRow], classes: Sequence[ClassRow], console: Console) -> None:
    """The files (the first of many, those with a problem before others) and the classes."""
    shown = sorted(rows, key=lambda row: not row.problem)[:SHOWN] if len(rows) > SHOWN else rows
    names = [part.name for part in fields(FileRow) if part.name not in {"identity", "digest"}]
    columns = [name for name in names if any(getattr(row, name) for row in shown)]
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name.replace("_", " "), no_wrap=name != "problem")
    for row in shown:
        table.add_row(*(getattr(row, name) for name in columns))
    _print(table, console)
    if len(rows) > len(shown):
        console.print(f"… and {len(rows) - len(shown):,} more files ({NAME} has all)")
    if classes:
        table = Table("in the files", "class", "files", "shapes", "mm²", box=None, pad_edge=False)
        for name in ("files", "shapes", "mm²"):
            next(column for column in table.columns if column.header == name).justify = "right"
        for kind in classes:
            shapes = f"{kind.shapes:,}" if kind.shapes else ""
            table.add_row(kind.called, kind.name or "left out", f"{kind.files:,}", shapes, f"{kind.mm2:.4g}")
        _print(table, console)


def _print(table: Table, console: Console) -> None:
    """The table; as wide as it needs to be where it goes to a file, whose lines have no end."""
    width = console.width
    if not console.is_terminal:
        needed = Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum
        console.width = max(width, needed)
    console.print(table)
    console.width = width


def write_csv(path: Path, rows: Sequence[FileRow]) -> None:
    """All files, one a line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([part.name for part in fields(FileRow)])
    writer.writerows(astuple(row) for row in rows)
    write_text(path, text.getvalue())
