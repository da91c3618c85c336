"""What the parts of a recipe took: `parts.json` in a run's folder, which the next start resumes from.

Invariants: a part is done only when it has ended; the seconds of a part that was stopped are not counted, for
what it did is in its checkpoint, and the time that it was first given stays with it.
"""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from diffgen.storage import write_text

FILE = "parts.json"
HERE_ONLY = ("pictures", "prepare", "latents", "card")
"""Parts whose work does not travel with a run, or is done again after it."""


@dataclass
class Record:
    """The parts of one run that are done, in their order, and how they were done."""

    run: Path
    seconds: dict[str, float] = field(default_factory=dict)
    """Of each part that is done."""
    given: dict[str, float] = field(default_factory=dict)
    """Seconds that a part which has begun may take."""
    commands: list[str] = field(default_factory=list)
    machine: str = ""

    @classmethod
    def of(cls, run: Path) -> "Record":
        """The record in a run's folder, or a new one."""
        path = run / FILE
        return cls(run, **(json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}))

    def save(self) -> None:
        """Put it in the run's folder."""
        tree = asdict(self)
        del tree["run"]
        self.run.mkdir(parents=True, exist_ok=True)
        write_text(self.run / FILE, json.dumps(tree, indent=2) + "\n")

    def end(self, part: str, seconds: float, commands: Sequence[str], machine: str) -> None:
        """Note that a part is done."""
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds
        self.commands += [command for command in commands if command not in self.commands]
        if part in ("autoencoder", "image", "mask"):
            self.machine = machine
        self.save()

    def forget(self, parts: Sequence[str]) -> None:
        """Take parts off the list: their work is not here."""
        for part in parts:
            self.seconds.pop(part, None)
            self.given.pop(part, None)
        self.save()


def machine(device: str) -> str:
    """What computes, as the model card tells it."""
    cores = f"{os.cpu_count()} cores, {platform.machine()}"
    if device != "cuda":
        return cores
    import torch

    return f"one {torch.cuda.get_device_name()}, {cores}"


def curves(run: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """The learning curves of a run, thinned to 500 points each: part → figure → (step, value)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    folder = run / "tensorboard"
    for part in sorted(path.name for path in folder.glob("*") if path.is_dir()):
        events: Any = EventAccumulator(str(folder / part), size_guidance={"scalars": 500, "images": 1})
        events.Reload()
        found[part] = {
            tag: [(point.step, point.value) for point in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
        }
    return found


def tell(record: Record, data: Path, console: Console) -> None:
    """The table of parts: seconds, last held-out loss, megabytes on disk."""
    bundle = record.run / "bundle"
    places = {
        "prepare": data, "autoencoder": bundle / "autoencoder", "latents": data / "latents", "bundle": bundle,
        "image": bundle / "image_unet", "mask": bundle / "mask_unet", "evaluate": record.run / "report",
    }  # fmt: skip
    found = curves(record.run)
    table = Table("part", "seconds", "held-out loss", "MB")
    for part, took in record.seconds.items():
        losses, place = found.get(part, {}).get("train/held_out_loss", []), places.get(part)
        size = "" if place is None or not place.exists() else f"{megabytes(place):.1f}"
        table.add_row(part, f"{took:.0f}", f"{losses[-1][1]:.4f}" if losses else "", size)
    table.add_row("all", f"{sum(record.seconds.values()):.0f}", "", "")
    console.print(table)


def megabytes(folder: Path) -> float:
    """Of the files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
