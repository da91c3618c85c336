"""What a run of prepare did, as data and as the words at its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffgen.labels import Labels

SHOWN = 4
"""Names printed of a list; all of them are in statistics.json."""


@dataclass
class LeftOuts:
    """Names by reason, in the order in which they were met."""

    by_reason: dict[str, list[str]] = field(default_factory=dict)
    _seen: set[tuple[str, str]] = field(default_factory=set)

    def add(self, reason: str, name: str) -> None:
        if (reason, name) not in self._seen:
            self._seen.add((reason, name))
            self.by_reason.setdefault(reason, []).append(name)

    def first(self) -> str:
        """The first reasons, in one line."""
        return "; ".join(f"{reason}: {listed(names)}" for reason, names in list(self.by_reason.items())[:3])


@dataclass(frozen=True)
class Report:
    """Patches by kind and split, class shares of the image patches (label maps: of the mask patches)
    by split, and what was left out."""

    out: Path
    labels: Labels
    sources: Mapping[str, Mapping[str, Any]]
    """Of each source that was used: µm per pixel, whether they are assumed, patches."""
    patches: Mapping[str, Mapping[str, int]]
    """kind → split → number."""
    class_shares: Mapping[str, Sequence[float]]
    """split → share by class id."""
    left_out: Mapping[str, Sequence[str]]
    """Reason → names."""
    notes: Sequence[str] = ()
    stain_model: Mapping[str, Any] | None = None
    seconds: float = field(default=0.0, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Everything but the time it took: the same input gives the same file."""
        shares = {
            split: dict(zip(self.labels.classes, (round(s, 6) for s in shares), strict=True))
            for split, shares in self.class_shares.items()
        }
        return {
            "patches": self.patches,
            "class_shares": shares,
            "left_out": self.left_out,
            "notes": list(self.notes),
            "sources": self.sources,
            "stain_model": self.stain_model,
        }

    def print(self, console: Console) -> None:
        """The summary: counts, class shares, what was left out, notes, where it all is."""
        console.print(self._counts())
        console.print(self._classes())
        self._print_left_out(console)
        for note in self.notes:
            console.print(Text(f"note: {note}", style="yellow"), soft_wrap=True)
        end = f"{counted(len(self.sources), 'source')} prepared in {self.seconds:.0f} s: "
        console.print(Text(end).append(str(self.out), style="bold"), soft_wrap=True)
        console.print(Text("contact sheet: ").append(str(self.out / "contact_sheet.png")), soft_wrap=True)

    def _counts(self) -> Table:
        table = Table("patches", title_justify="left", box=None, pad_edge=False)
        for split in ("train", "test"):
            table.add_column(split, justify="right")
        for kind, counts in self.patches.items():
            table.add_row(f"{kind} model", *(f"{counts[split]:,}" for split in ("train", "test")))
        return table

    def _classes(self) -> Table:
        table = Table("class", box=None, pad_edge=False)
        for split in self.class_shares:
            table.add_column(f"{split}", justify="right")
        for i, name in enumerate(self.labels.classes):
            swatch = Text("■ ", style="#{:02x}{:02x}{:02x}".format(*self.labels.colours[i])).append(
                name, "default"
            )
            table.add_row(swatch, *(f"{shares[i]:.1%}" for shares in self.class_shares.values()))
        return table

    def _print_left_out(self, console: Console) -> None:
        if not self.left_out:
            console.print("left out: nothing")
            return
        count = len({name for names in self.left_out.values() for name in names})
        console.print(
            Text(f"left out, in whole or in part: {count} file{'s' * (count != 1)}", style="yellow")
        )
        for reason, names in self.left_out.items():
            console.print(Text(f"  {len(names)} × {reason}: {listed(names)}"), soft_wrap=True)


def counted(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def listed(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def leading(rows: Sequence[Mapping[str, Any]]) -> str:
    """The kind of patch that shares are counted on: images, where there are any."""
    return "image" if any(row["kind"] == "image" for row in rows) else "mask"


def class_shares(rows: Sequence[Mapping[str, Any]], classes: int) -> dict[str, list[float]]:
    """Mean class shares by split, over the image patches or, where there are none, the mask patches."""
    kind = leading(rows)
    shares: dict[str, list[float]] = {}
    for split in ("train", "test"):
        found = [row["shares"] for row in rows if row["kind"] == kind and row["split"] == split]
        if found:
            shares[split] = [sum(row[i] for row in found) / len(found) for i in range(classes)]
    return shares
