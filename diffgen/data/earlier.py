"""What a folder of prepared data holds already, where sources are added to it.

What is there stays as it is: its ids of classes and contexts, its model of the stains, its side of the split.
A source is there where one of its name and contents is (`sources.identity`).
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from diffgen import config
from diffgen.config import Settings
from diffgen.data import inventory
from diffgen.data.classes import Classes
from diffgen.data.inventory import FileRow
from diffgen.data.plan import PatchLayout
from diffgen.data.sources import Source, identity
from diffgen.data.stain import StainModel
from diffgen.data.stream import statistics
from diffgen.errors import UserError
from diffgen.labels import Labels

FREE = {"contexts", "patients", "annotations", "mpp_override", "classes"}
"""Settings that may differ: they are of the sources that are added. Names of classes may be added."""


@dataclass(frozen=True)
class Earlier:
    """Prepared data as it is; empty where there is none yet."""

    rows: Sequence[dict[str, Any]] = ()
    """Of `patches.parquet`."""
    files: Mapping[str, FileRow] = field(default_factory=dict)
    """Of `sources.csv`."""
    statistics: Mapping[str, Any] = field(default_factory=dict)
    labels: Labels | None = None

    @property
    def sides(self) -> dict[str, str]:
        """Group, or name where it has none, → its side of the split, or both joined by a plus."""
        return {row.patient or row.file: row.split for row in self.files.values() if row.split}

    @property
    def digests(self) -> dict[str, FileRow]:
        return {row.digest: row for row in self.files.values() if row.digest}

    @property
    def stain_model(self) -> StainModel | None:
        told = self.statistics.get("stain_model")
        return None if told is None else StainModel.from_json(told)


def read(out: Path, settings: Settings) -> Earlier:
    """What is in a complete folder. Raises `UserError` where it was prepared with other settings."""
    if not (out / inventory.NAME).exists():
        raise UserError(f"{out} holds prepared data of an older diffgen; choose another --out")
    then = config.validate(config.read_yaml(out / "settings.yaml"))
    changed = _differences(then, settings)
    if changed:
        raise UserError(
            f"{out} already holds prepared data, with other settings ({', '.join(changed)}); "
            "choose another --out"
        )
    with (out / inventory.NAME).open(encoding="utf-8", newline="") as file:
        files = {row["file"]: FileRow(**row) for row in csv.DictReader(file)}
    rows = pq.read_table(out / "patches.parquet").to_pylist()
    return Earlier(rows, files, statistics(out), Labels.load(out / "labels.json"))


def _differences(then: Settings, now: Settings) -> list[str]:
    """Names of the settings that shape the data and are not the same."""
    one, other = (settings.prepare.model_dump(exclude=FREE) for settings in (then, now))
    changed = [f"prepare.{name}" for name in one if one[name] != other[name]]
    one_layout, other_layout = (replace(PatchLayout.of(s), min_tissue=0, step=0) for s in (then, now))
    if one_layout != other_layout:
        changed.append("image_model.patch or mask_model.patch")
    names, more = then.prepare.classes, now.prepare.classes
    if any(more.get(number) != name for number, name in names.items()):
        changed.append("prepare.classes")
    return changed


def added(sources: Sequence[Source], earlier: Earlier) -> tuple[list[Source], int]:
    """The sources that are not there yet, and how many are.

    One of another folder with the name of one that is there gets its folder's name before it. Raises
    `UserError` where that is there as well: a source that has changed is not cut anew.
    """
    new, known = [], 0
    for source in sources:
        root = Path(source.root).absolute()
        own = Path(source.path).relative_to(root).as_posix()
        names = list(dict.fromkeys((source.name, own, f"{root.name}/{own}")))
        free = [name for name in names if name not in earlier.files]
        if len(free) < len(names) and identity(Path(source.path)) in {
            earlier.files[name].identity for name in names if name not in free
        }:
            known += 1
        elif not free:
            raise UserError(f"{source.path}: {own} is in the prepared data already, with other contents")
        else:
            new.append(replace(source, name=free[0]))
    return new, known


def with_earlier(classes: Classes, earlier: Earlier) -> Classes:
    """The classes with the ids that they have in the data, and those that it has beside them."""
    if earlier.labels is None:
        return classes
    there = earlier.labels
    if classes.labels.classes[: len(there)] == there.classes:
        return classes  # named by the settings, perhaps with more
    if there.classes[: len(classes.labels)] != classes.labels.classes:
        raise UserError(
            f"the prepared data has other classes: {', '.join(there.classes)}, "
            f"not {', '.join(classes.labels.classes)}"
        )
    labels = Labels(there.classes, colours=there.colours)
    beside = range(len(classes.labels), len(there))
    return replace(classes, labels=labels, named=classes.named | frozenset(beside))


def contexts(earlier: Earlier, found: set[str]) -> tuple[str, ...]:
    """All contexts, those that are there first, with their ids."""
    there = () if earlier.labels is None else earlier.labels.contexts
    return (*there, *sorted(found - set(there)))


def digest_of_run(jobs: Sequence[Any], settings: Settings, classes: Classes, first: int) -> str:
    """What the patches of a run depend on: its sources as they are now, its jobs, settings and classes."""
    import hashlib

    paths = sorted(
        {path for job in jobs for path in (job.source.path, job.source.mask, job.source.outlines) if path}
    )
    stats = [(path, (stat := Path(path).stat()).st_size, stat.st_mtime_ns) for path in paths]
    boxes = [[vars(patch) for patch in job.patches] for job in jobs]
    prepare = settings.prepare.model_dump(mode="json")
    told = json.dumps(
        [stats, boxes, prepare, classes.labels.to_json(), classes.stain and classes.stain.to_json(), first]
    )
    return hashlib.sha256(told.encode()).hexdigest()
