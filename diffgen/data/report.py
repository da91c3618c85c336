"""What a run of prepare did: gathered on its way, told at its end, kept in `statistics.json`."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffgen.errors import counted
from diffgen.labels import Labels

if TYPE_CHECKING:
    from diffgen.data.plan import SourcePlan

SHOWN = 4
"""Names printed of a list; all of them are in statistics.json."""
SPLITS = ("train", "test")


@dataclass
class Report:
    """Patches by kind and split, class shares by split, sources, what was left out, and notes."""

    out: Path
    notes: list[str] = field(default_factory=list)
    labels: Labels = field(default_factory=partial(Labels, ("unknown",)))
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of each source that was used: µm per pixel, whether they are assumed, its parts, patches."""
    patches: dict[str, dict[str, int]] = field(default_factory=dict)
    """kind → split → number."""
    class_shares: dict[str, list[float]] = field(default_factory=dict)
    """split → mean share by class id, over the image patches or, where there are none, the mask patches."""
    stain_model: Mapping[str, Any] | None = None
    _left_out: dict[str, dict[str, None]] = field(default_factory=dict)

    @classmethod
    def of(cls, out: Path, told: Mapping[str, Any], labels: Labels | None) -> "Report":
        """A report that goes on with what `statistics.json` tells of a folder."""
        report = cls(out, list(told.get("notes", ())), sources=dict(told.get("sources", {})))
        report.labels = labels or report.labels
        report.stain_model = told.get("stain_model")
        for reason, names in told.get("left_out", {}).items():
            for name in names:
                report.leave_out(reason, name)
        return report

    def leave_out(self, reason: str, name: str) -> None:
        """Note a file that is not used, or not all of it."""
        self._left_out.setdefault(reason, {})[name] = None

    @property
    def left_out(self) -> dict[str, list[str]]:
        """Reason → names, in the order in which they were met."""
        return {reason: list(names) for reason, names in self._left_out.items()}

    def nothing(self) -> str:
        """That nothing is left, with the first reasons, in one line."""
        reasons = "; ".join(f"{reason}: {listed(names)}" for reason, names in list(self.left_out.items())[:3])
        return f"nothing could be prepared ({reasons})"

    def count(self, rows: Sequence[Mapping[str, Any]], labels: Labels, plans: Sequence["SourcePlan"]) -> None:
        """Count the patches that were written, `rows` of the index, and each context's share of them.

        Shares are of the images or, where there are none, of the mask patches; a context's of those for
        training or, where none is, of all.
        """
        counts = Counter((row["kind"], row["split"]) for row in rows)
        self.patches = {kind: {split: counts[kind, split] for split in SPLITS} for kind in ("image", "mask")}
        leading = "image" if any(self.patches["image"].values()) else "mask"
        by_split = {
            split: [r for r in rows if (r["kind"], r["split"]) == (leading, split)] for split in SPLITS
        }
        for split, found in by_split.items():
            if found:
                columns = zip(*(row["shares"] for row in found), strict=True)
                self.class_shares[split] = [sum(column) / len(found) for column in columns]
        contexts = [row["context"] for row in by_split["train"] or by_split["test"]]
        shares = np.bincount(contexts, minlength=len(labels.contexts)) / len(contexts)
        self.labels = replace(labels, context_shares=tuple(shares.tolist()))
        by_source = Counter(row["source"] for row in rows)
        for plan in plans:
            scan = plan.scan
            if number := by_source[scan.source.name]:
                about = {
                    "mpp": list(scan.mpp),
                    "assumed": scan.assumed,
                    "parts": plan.parts,
                    "patches": number,
                }
                self.sources[scan.source.name] = about

    def to_json(self) -> dict[str, Any]:
        """The same input gives the same file."""
        shares = {
            split: dict(zip(self.labels.classes, (round(s, 6) for s in shares), strict=True))
            for split, shares in self.class_shares.items()
        }
        return {
            "patches": self.patches,
            "class_shares": shares,
            "left_out": self.left_out,
            "notes": self.notes,
            "sources": self.sources,
            "stain_model": self.stain_model,
        }

    def print(self, console: Console, seconds: float, where: str) -> None:
        """The summary: counts, class shares, what was left out, notes, where it all is."""
        table = Table("patches", *SPLITS, box=None, pad_edge=False)
        for kind, counts in self.patches.items():
            table.add_row(f"{kind} model", *(f"{counts[split]:,}" for split in SPLITS))
        console.print(_right(table))
        table = Table("class", *self.class_shares, box=None, pad_edge=False)
        for name, colour, *shares in zip(
            self.labels.classes, self.labels.colours, *self.class_shares.values(), strict=True
        ):
            swatch = Text("■ ", style="#{:02x}{:02x}{:02x}".format(*colour)).append(name, "default")
            table.add_row(swatch, *(f"{share:.1%}" for share in shares))
        console.print(_right(table))
        end = f"{counted(len(self.sources), 'source')} prepared in {seconds:.0f} s: "
        self.print_notes(console)
        console.print(Text(end).append(where, style="bold"), soft_wrap=True)
        console.print(Text(f"contact sheet: {where.rstrip('/')}/contact_sheet.png"), soft_wrap=True)

    def print_notes(self, console: Console) -> None:
        """What was left out and why, and the notes."""
        lines = [Text("left out: nothing")]
        if self.left_out:
            files = counted(len({name for names in self.left_out.values() for name in names}), "file")
            lines = [Text(f"left out, in whole or in part: {files}", style="yellow")]
        lines += [
            Text(f"  {len(names)} × {reason}: {listed(names)}") for reason, names in self.left_out.items()
        ]
        lines += [Text(f"note: {note}", style="yellow") for note in self.notes]
        for line in lines:
            console.print(line, soft_wrap=True)


def _right(table: Table) -> Table:
    """The table with its numbers aligned."""
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def listed(names: Iterable[str]) -> str:
    """The first few of some names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
