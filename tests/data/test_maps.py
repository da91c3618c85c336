"""`labels: maps`: label maps without images become mask patches, and nothing else."""

import json
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image
from rich.console import Console

from diffgen.config import Settings, load
from diffgen.data.formats.base import LeftOut
from diffgen.data.prepare import prepare
from diffgen.data.report import Report
from diffgen.data.slides import open_slide
from diffgen.data.sources import find_sources
from diffgen.data.stream import PatchTable
from diffgen.errors import UserError
from diffgen.labels import majority

MAPS = [
    "prepare.labels=maps",
    "mask_model.patch=8",
    "mask_model.attention=[8]",
    "prepare.classes={1: a, 2: b}",
]
"""Mask patches of 8 pixels of 8 µm: 64 µm."""


def settings(*overrides: str) -> Settings:
    return load(None, [*MAPS, "prepare.assume_mpp=0.25", *overrides])


def run(sources: list[Path], out: Path, *overrides: str) -> tuple[Report, str]:
    console = Console(record=True, width=160, file=StringIO())
    report = prepare([str(source) for source in sources], out, settings(*overrides), console)
    return report, console.export_text()


def blocks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Classes in blocks of 64 pixels; the left 320 of them unknown."""
    values = rng.integers(1, 3, (height // 64, width // 64)).astype(np.uint8)
    values[:, :5] = 0
    return values.repeat(64, axis=0).repeat(64, axis=1)


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


@pytest.mark.usefixtures("ray_cluster")
def test_label_maps_become_mask_patches(tmp_path: Path, rng: np.random.Generator) -> None:
    label_map = blocks(rng, 640, 1280)
    save(tmp_path / "in" / "x" / "one_mask.png", label_map)
    wide = label_map.astype(np.uint16) * 1000
    tifffile.imwrite(tmp_path / "in" / "x" / "two.tif", wide[:, ::-1])
    save(tmp_path / "in" / "rgb.png", np.full((600, 600, 3), (9, 0, 0), np.uint8))
    save(tmp_path / "in" / "blank.png", np.zeros((600, 600), np.uint8))
    save(tmp_path / "in" / "tiny.png", np.ones((255, 600), np.uint8))
    save(tmp_path / "in" / "odd.png", np.full((600, 600), 9, np.uint8))
    (tmp_path / "in" / "c.csv").write_text("file,context\none_mask,A\ntwo,B\nrgb,A\nblank,A\ntiny,A\nodd,A\n")
    out = tmp_path / "out"
    report, text = run(
        [tmp_path / "in"],
        out,
        "prepare.mask_values={1000: 1, 2000: 2}",
        "prepare.min_tissue=0.5",
        f"prepare.contexts={tmp_path / 'in' / 'c.csv'}",
    )
    reasons = {name: reason for reason, names in report.left_out.items() for name in names}
    assert reasons["rgb.png"].startswith("its label map cannot be used: its classes are colours (#090000)")
    assert reasons["blank.png"] == reasons["odd.png"] == "nothing in it is known"
    assert reasons["tiny.png"] == "smaller than a mask patch (128 px at 0.5 µm per pixel)"
    assert "mask model" in text
    assert set(report.sources) == {"x/one_mask.png", "x/two.tif"}

    rows = pq.read_table(out / "patches.parquet").to_pylist()
    assert {row["kind"] for row in rows} == {"mask"}
    assert {row["split"] for row in rows} == {"train", "test"}
    assert all(row["labelled"] and row["shares"][0] <= 0.5 for row in rows)
    assert any(row["shares"][0] > 0.25 for row in rows)  # more would be lost with a higher share
    statistics = json.loads((out / "statistics.json").read_text())
    assert statistics["patches"]["image"] == {"train": 0, "test": 0}
    shares = statistics["class_shares"]["train"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
    assert shares["a"] > 0.2

    patches = PatchTable(out, "mask")
    assert patches.labels.contexts == ("A", "B")
    assert sum(patches.labels.context_shares) == pytest.approx(1)
    wanted = majority(label_map[::2, ::2], 16, 3)
    for k, row in enumerate(patches.rows):
        x, y = row["x"] // 16, row["y"] // 16
        whole = wanted if row["source"] == "x/one_mask.png" else wanted[:, ::-1]
        if row["x"] % 16 == row["y"] % 16 == 0:
            np.testing.assert_array_equal(patches.label_map(k), whole[y : y + 8, x : x + 8])
        assert patches.context(k) == ("x/one_mask.png", "x/two.tif").index(row["source"])
    assert Image.open(BytesIO((out / "contact_sheet.png").read_bytes())).size[0] > 1000


def test_user_errors_come_before_any_work(tmp_path: Path) -> None:
    path = save(tmp_path / "in" / "a.png", np.ones((600, 600), np.uint8))
    with pytest.raises(UserError, match=r"^1 label map, but no class has a name: say --set"):
        prepare([str(path)], tmp_path / "out", load(None, ["prepare.labels=maps"]), Console())
    with pytest.raises(UserError, match=r"photo\.jpg: no label map \(PNG, TIFF or BMP\), by its suffix"):
        run([save(tmp_path / "photo.jpg", np.ones((600, 600), np.uint8))], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no label map \(PNG, TIFF or BMP\) in this folder"):
        run([tmp_path / "empty"], tmp_path / "out")
    (tmp_path / "c.csv").write_text("file,context\nb,B\n")
    with pytest.raises(UserError, match=r"c\.csv: no row for the source a\.png"):
        run([path], tmp_path / "out", f"prepare.contexts={tmp_path / 'c.csv'}")
    assert not (tmp_path / "out").exists()


def test_a_tiff_may_say_its_own_scale(tmp_path: Path) -> None:
    values = np.ones((64, 32), np.uint16)
    scale = {"resolution": (1e4 / 0.4, 1e4 / 0.41), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "a.tif", values, **scale)
    tifffile.imwrite(tmp_path / "b.tif", values, resolution=(72, 72), resolutionunit="INCH")
    first, second = find_sources([str(tmp_path)], maps=True).sources
    slide, assumed = open_slide(first.path, 0.25, is_map=True)
    assert not assumed
    assert slide.mpp == pytest.approx((0.4, 0.41))
    assert slide.size(0.4) == (32, 65)
    slide, assumed = open_slide(second.path, 0.25, is_map=True)
    assert assumed
    assert slide.mpp == (0.25, 0.25)
    with pytest.raises(LeftOut, match="--mpp"):
        open_slide(second.path, is_map=True)
