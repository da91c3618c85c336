"""Adding sources to prepared data, and resuming a run that was interrupted."""

import hashlib
import json
from io import StringIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from diffgen.config import load
from diffgen.data import cut as cutting
from diffgen.data import prepare as module
from diffgen.data.prepare import prepare
from diffgen.data.report import Report
from diffgen.data.spool import NAME
from diffgen.data.stream import PatchTable
from diffgen.errors import UserError
from tests.data.pictures import save_image, tissue

SMALL = ["image_model.patch=16", "mask_model.patch=8", "mask_model.attention=[8]", "prepare.assume_mpp=0.5"]
SMALL += ["prepare.patches_per_shard=5", "prepare.test_share=0.3", "prepare.contexts=folder"]


def run(sources: list[Path], out: Path, *said: str) -> tuple[Report, str]:
    console = Console(record=True, width=200, file=StringIO())
    settings = load(None, [*SMALL, "prepare.classes=[a]", *said])
    return prepare([str(s) for s in sources], out, settings, console, inline=True), console.export_text()


def pictures(folder: Path, numbers: range) -> Path:
    for number in numbers:
        mask = np.full((256, 256), number % 2, np.uint8)
        save_image(folder / f"{number:02d}.png", tissue(256, 256, number), mask)
    return folder


def sums(out: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in out.iterdir() if p.is_file()}


def test_a_source_that_is_added_is_cut_alone(tmp_path: Path) -> None:
    one, out = pictures(tmp_path / "one", range(12)), tmp_path / "out"
    first, _ = run([one], out)
    before = sums(out)
    _, said = run([one], out)
    assert "nothing new: all 12 sources are in" in said
    assert sums(out) == before

    pictures(one, range(12, 16))
    two = tmp_path / "two"
    for number in (3, 4):  # copies of the pictures, as other files, under names that are taken
        save_image(two / f"{number:02d}.png", tissue(256, 256, number), np.full((256, 256), 1, np.uint8))
        with Image.open(two / f"{number:02d}.png") as image:
            image.load()
            image.save(two / f"{number:02d}.png", compress_level=1)
    report, said = run([one, two], out)
    assert "12 sources are there already" in said
    assert set(report.sources) == {f"{n:02d}.png" for n in range(16)} | {"two/03.png", "two/04.png"}
    after = sums(out)
    shards = [name for name in before if name.endswith(".tar")]
    assert {name: after[name] for name in shards} == {name: before[name] for name in shards}
    for name, about in first.sources.items():
        assert report.sources[name] == json.loads(json.dumps(about))
    for name in ("03.png", "04.png"):
        assert report.sources[f"two/{name}"]["parts"].keys() == report.sources[name]["parts"].keys()
    assert report.labels.contexts == ("one", "two")

    rows = pq.read_table(out / "patches.parquet").to_pylist()
    streams: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        streams.setdefault((row["kind"], row["split"]), []).append(row["key"])
    assert all(keys == [f"{n:09d}" for n in range(len(keys))] for keys in streams.values())
    table = PatchTable(out, "image", "train")
    assert table.picture(len(table) - 1).shape == (128, 128, 3)
    assert sum(report.patches["image"].values()) == sum(row["kind"] == "image" for row in rows)
    assert json.loads((out / "statistics.json").read_text())["sources"].keys() == report.sources.keys()


def test_other_settings_and_changed_sources_are_refused(tmp_path: Path) -> None:
    one, out = pictures(tmp_path / "one", range(3)), tmp_path / "out"
    run([one], out)
    with pytest.raises(UserError, match=r"with other settings \(prepare\.min_tissue\); choose another --out"):
        run([one], out, "prepare.min_tissue=0.5")
    with pytest.raises(UserError, match=r"other settings \(prepare\.classes\)"):
        run([one], out, "prepare.classes=[b]")
    save_image(one / "01.png", tissue(256, 256, 55))
    report, _ = run([one], out)
    assert set(report.sources) == {"00.png", "01.png", "02.png", "one/01.png"}
    save_image(one / "01.png", tissue(256, 256, 66))
    with pytest.raises(UserError, match=r"01\.png is in the prepared data already, with other contents"):
        run([one], out)


def test_a_run_that_was_stopped_cuts_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pictures(tmp_path / "one", range(8))
    run([one], tmp_path / "afresh")
    made: list[str] = []

    def stops(job: cutting.CutJob, **constants: object) -> list[cutting.EncodedPatch]:
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(job.name)
        return cutting.cut(job, **constants)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(module, "cut", stops)
        with pytest.raises(KeyboardInterrupt):
            run([one], tmp_path / "out")
    assert (tmp_path / "out" / NAME).exists()

    def counted(job: cutting.CutJob, **constants: object) -> list[cutting.EncodedPatch]:
        made.append(job.name)
        return cutting.cut(job, **constants)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "cut", counted)
    made.clear()
    run([one], tmp_path / "out")
    assert made == ["04.png", "05.png", "06.png", "07.png"]  # the last one that was cut may not be whole
    assert sums(tmp_path / "out") == sums(tmp_path / "afresh")
