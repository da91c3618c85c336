"""Finished samples → shards: WebDataset tars, their manifest, and everything that makes them a data set.

Invariants, whoever dies when (promises 2–7 of the design):

- A shard is committed when `manifest/shard-000000.parquet` stands, and that is written after its tar.
- The same samples give the same tar, byte for byte: nothing of the run is in it.
- A sample that is whole in some tar of this folder is never asked for again: a committed shard that
  has become too short (larger n), an uncommitted tar and a damaged one are read back.
- A folder holds the samples of one run (`run.json`), and never less than before.
- A sample that cannot be made is not in its shard's tar; its row in the manifest says why.

No state beside the folder: a writer that died is replaced by a new one, and every call may be repeated.
One writer a folder at a time.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diffgen.errors import UserError, one_line, warn
from diffgen.labels import LabelMap, Labels, Picture
from diffgen.shards import canonical_json, open_png, pack, samples
from diffgen.storage import Folder
from diffgen.synthesis import manifest
from diffgen.synthesis.card import dataset_card, preview
from diffgen.synthesis.manifest import Sample
from diffgen.synthesis.run_record import claim, of_any_device

EIGHT_BIT_GREY = b"\x08\x00"  # bit depth and colour type in a PNG's header


def shard_name(k: int) -> str:
    return f"shard-{k:06d}"


def shard_of(index: int, per_shard: int) -> int:
    return index // per_shard


def num_shards(n: int, per_shard: int) -> int:
    return -(-n // per_shard)


def choose_per_shard(n: int) -> int:
    """Samples a shard where there are n to begin with: eight shards, for as many workers of a reader.

    One sample a shard at least, 64 at most: a shard is what is lost, and made anew, at once.
    """
    return min(64, max(1, n // 8))


def shard_indices(k: int, n: int, per_shard: int) -> range:
    """Indices of the samples of shard k where there are n in all."""
    return range(min(n, k * per_shard), min(n, (k + 1) * per_shard))


class ShardWriter:
    """Writes shards of `per_shard` samples under `url`; `run` is what shapes the samples (JSON-able).

    Call `begin` first. `verify`: check the sha256 of every committed tar at start, not only its size.
    `made_on`: device, precision and version of torch; `mix`: samples of others may be in the folder.
    """

    def __init__(
        self,
        url: str,
        run: Mapping[str, Any],
        per_shard: int,
        verify: bool = False,
        made_on: Mapping[str, str] | None = None,
        mix: bool = False,
    ) -> None:
        self.store = Folder(url)
        self.run: dict[str, Any] = json.loads(canonical_json(run))
        self.per_shard = per_shard
        self.verify = verify
        self.made_on, self.mix = made_on, mix
        self._parts: dict[int, Any] | None = None  # tables of the committed shards; None: not looked yet
        self._dropped: dict[int, Any] = {}  # tables of parts whose tar turned out to be damaged

    def begin(self, n: int) -> set[int]:
        """Claim the folder, clean up after a killed writer, adopt whole tars; the shards complete for n.

        Raises `UserError` if the folder holds other things or another run, or cannot be used.
        """
        with self.store.answering():
            run = {**self.run, "images_per_shard": self.per_shard}
            claim(self.store, run, self.made_on, self.mix)
            self.store.clean()
            self._parts = None
            committed = self._committed()
            for name in self.store.files("", ".tar"):
                k = _number(name)
                found = {} if k is None or k in committed else self._read(k)
                if k is not None and found and found.keys() >= set(shard_indices(k, n, self.per_shard)):
                    self.write(k, list(found.values()))
        return self.committed(n)

    def committed(self, n: int) -> set[int]:
        """Shards that hold all of their samples with an index below n."""
        return {k for k in range(num_shards(n, self.per_shard)) if self._complete(k, n)}

    def salvage(self, k: int, n: int) -> dict[int, Sample]:
        """Whole samples of a shard not complete for n, by index; all of them belong into its next `write`."""
        if self._complete(k, n) or not self.store.exists(_tar_name(k)):
            return {}
        return self._read(k)

    def failed(self, n: int) -> dict[int, str]:
        """Samples with an index below n that could not be made, and why, of the committed shards."""
        parts = (part.filter(pc.is_valid(part["failed"])) for part in self._committed().values())
        rows = (row for part in parts for row in part.select(["index", "failed"]).to_pylist())
        return {row["index"]: row["failed"] for row in rows if row["index"] < n}

    def complete(
        self, k: int, n: int, *made: Sequence[Sample], failed: Mapping[int, str] | None = None
    ) -> str:
        """`write` with what `salvage` gives beside `made`, so that it need not leave the writer."""
        fresh = {sample.index: sample for part in made for sample in part}
        return self.write(k, list((self.salvage(k, n) | fresh).values()), failed or {})

    def write(self, k: int, made: Sequence[Sample], failed: Mapping[int, str] = MappingProxyType({})) -> str:
        """Write and commit shard k, unless it holds these samples already; the sha256 of its tar.

        `failed`: samples that could not be made, and why.
        Raises `ValueError` if a sample is not of this shard and run, or its mask is not 8-bit grey.
        """
        made = sorted(made, key=lambda sample: sample.index)
        indices = {sample.index for sample in made} | failed.keys()
        assert 0 < len(indices) == len(made) + len(failed), "no sample, or an index twice"
        old = self._committed().get(k)
        if old is not None:
            held = set(old["index"].to_pylist())
            if indices <= held:
                return str(old["shard_sha256"][0])
            assert indices >= held, f"{shard_name(k)}: committed samples would be lost"
        sizes = [self._check(k, sample, decode=False) for sample in made]
        with self.store.scratch() as scratch:
            path = scratch / "shard.tar"
            num_bytes, sha256 = pack(path, (member for sample in made for member in sample.members))
            # A part must never stand beside a tar that it does not describe.
            self._committed().pop(k, None)
            self.store.delete(_part_name(k))
            if not self.store.holds(_tar_name(k), num_bytes, sha256):
                self.store.upload(path, _tar_name(k))
        shard = {"shard_sha256": sha256, "shard_bytes": num_bytes}
        name = shard_name(k)
        rows = [manifest.row(name, sample, *size) | shard for sample, size in zip(made, sizes, strict=True)]
        rows += [manifest.hole(name, index, reason) | shard for index, reason in failed.items()]
        rows.sort(key=lambda row: row["index"])
        part = pa.Table.from_pylist(rows, schema=manifest.PART)
        manifest.write(self.store, _part_name(k), part)
        self._committed()[k] = part
        self._dropped.pop(k, None)
        return sha256

    def finish(self, n: int, labels: Labels) -> None:
        """Merge the manifest of all that is committed, and write `labels.json`, the card and the preview.

        May be repeated. Raises `UserError` if shards are missing, after it has done so for the others.
        """
        self._ask_for_missing(n)
        parts = self._committed()
        if parts:
            self._describe(parts, labels)
        if missing := sorted(set(range(num_shards(n, self.per_shard))) - self.committed(n)):
            raise UserError(f"{self.store.url}: shards {missing} are not complete")

    def _ask_for_missing(self, n: int) -> None:
        """Look for shards by their names: what was written just now may be in no list of the store yet."""
        for k in set(range(num_shards(n, self.per_shard))) - self._committed().keys():
            if self.store.is_file(_part_name(k)):
                part = manifest.read(self.store, _part_name(k))
                if not self._fault(k, part, self.store.size(_tar_name(k))):
                    self._committed()[k] = part

    def _describe(self, parts: Mapping[int, Any], labels: Labels) -> None:
        table = pa.concat_tables([parts[k] for k in sorted(parts)])
        manifest.write(self.store, "manifest.parquet", table)
        self.store.write("labels.json", (json.dumps(labels.to_json(), indent=2) + "\n").encode())
        if (made := table.filter(pc.is_null(table["failed"]))).num_rows:
            self.store.write("README.md", dataset_card(self.run, made, labels).encode())
            self.store.write("preview.png", preview(self._pictures(), labels))

    def _complete(self, k: int, n: int) -> bool:
        part = self._committed().get(k)
        wanted = shard_indices(k, n, self.per_shard)
        return part is not None and set(part["index"].to_pylist()).issuperset(wanted)

    def _committed(self) -> dict[int, Any]:
        """Parts by shard. One that is unreadable, or whose tar is not the one it describes, is dropped."""
        if self._parts is None:
            self._parts = {}
            tars = self.store.files("", ".tar")
            for name in self.store.files("manifest", ".parquet"):
                k = _number(name)
                if k is None:
                    continue
                part = manifest.read(self.store, _part_name(k))
                num_bytes = tars.get(_tar_name(k)) or self.store.size(_tar_name(k))  # listed late
                fault = self._fault(k, part, num_bytes)
                if not fault:
                    self._parts[k] = part
                    continue
                warn(f"{_part_name(k)} {fault}; the shard is checked sample by sample")
                self._dropped[k] = part
                self.store.delete(_part_name(k))
        return self._parts

    def _fault(self, k: int, part: Any, num_bytes: int | None) -> str:
        """What is wrong with a part or its tar; empty if nothing."""
        if part is None:
            return "is not readable"
        if num_bytes is None:
            return "has no tar"
        if num_bytes != part["shard_bytes"][0].as_py():
            return f"does not fit its tar of {num_bytes} bytes"
        if self.verify and not self.store.holds(_tar_name(k), num_bytes, str(part["shard_sha256"][0])):
            return "gives another sha256 than its tar has"
        return ""

    def _read(self, k: int) -> dict[int, Sample]:
        """Samples of a tar that are whole, of this run, and as their part says, where there is one."""
        part = self._committed().get(k, self._dropped.get(k))
        rows = {} if part is None else {row["index"]: row for row in part.to_pylist()}
        found = {}
        for key, files in self._samples(k):
            try:
                sample = Sample.read(files)
                height, width = self._check(k, sample, decode=True)
                row = rows.get(sample.index, {})
                fresh = manifest.row(shard_name(k), sample, height, width)
                if sample.key != key or any(row.get(c, fresh[c]) != fresh[c] for c in fresh if "sha256" in c):
                    raise ValueError("is not what its name or the manifest says")
            except ValueError as error:
                warn(f"{_tar_name(k)}: sample {key} is made again: it {one_line(error)}")
                continue
            found[sample.index] = replace(sample, seconds=row.get("seconds"))
        return found

    def _samples(self, k: int) -> Iterator[tuple[str, dict[str, bytes]]]:
        with self.store.open(_tar_name(k)) as stream:
            yield from samples(stream)

    def _check(self, k: int, sample: Sample, decode: bool) -> tuple[int, int]:
        """(height, width) of a sample that may stand in shard k; `ValueError` says why it may not."""
        record = sample.record
        if record.get("index") != sample.index or shard_of(sample.index, self.per_shard) != k:
            raise ValueError(f"does not belong to {shard_name(k)}")
        if of_any_device(json.loads(canonical_json(record.get("run")))) != of_any_device(self.run):
            raise ValueError("is of another run")
        absent = {"context", "class_shares", "forwards"} - record.keys()
        if absent:
            raise ValueError(f"has no {', '.join(sorted(absent))} in its record")
        image, mask = open_png(sample.image, decode), open_png(sample.mask, decode)
        if sample.mask[24:26] != EIGHT_BIT_GREY or mask.size != image.size:
            raise ValueError("has a mask that is not 8-bit grey of the image's size")
        if decode and np.asarray(mask).max() >= len(record["class_shares"]):
            raise ValueError("has a class in its mask that its record does not know")
        return image.height, image.width

    def _pictures(self) -> Iterator[tuple[Picture, LabelMap, str]]:
        """Image, label map and key of every sample, one after the other."""
        for k in sorted(self._committed()):
            for key, files in self._samples(k):
                image = np.asarray(open_png(files["png"], decode=True).convert("RGB"))
                yield image, np.asarray(open_png(files["mask.png"], decode=True)), key


def _tar_name(k: int) -> str:
    return f"{shard_name(k)}.tar"


def _part_name(k: int) -> str:
    return f"manifest/{shard_name(k)}.parquet"


def _number(name: str) -> int | None:
    """Number of the shard that a tar or a part is of; `None` for another file."""
    found = re.fullmatch(r"shard-(\d{6,})\.(tar|parquet)", name)
    return int(found[1]) if found else None
