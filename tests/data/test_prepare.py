import hashlib
import json
import tarfile
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image
from rich.console import Console

from diffgen.config import Settings, load
from diffgen.data import contact_sheet
from diffgen.data.prepare import prepare
from diffgen.data.report import Report
from diffgen.errors import UserError
from diffgen.labels import Labels
from tests.data.pictures import GLASS, save_image, save_slide, tissue

REAL = Path(__file__).parents[2] / "../shared/data/slides/cmu_small_region.svs"
SAME = ("source", "x", "y", "height", "width", "split", "labelled", "context", "shares")
SMALL = ["image_model.patch=16", "mask_model.patch=8", "mask_model.attention=[8]", "prepare.assume_mpp=0.5"]
"""Images of 64 px, stored at 128; label maps of 128 px."""


pytestmark = pytest.mark.usefixtures("ray_cluster")


def run(sources: list[Path], out: Path, *overrides: str, inline: bool = False) -> tuple[Report, str]:
    console = Console(record=True, width=160, file=StringIO())
    report = prepare([str(source) for source in sources], out, settings(*overrides), console, inline)
    return report, console.export_text()


def settings(*overrides: str) -> Settings:
    return load(None, [*SMALL, *overrides])


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]  # all are files


def checksums(out: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.iterdir())}


def a_folder_with_everything(folder: Path) -> None:
    mask = np.zeros((256, 256), np.uint16)
    mask[:, 64:], mask[:, 128:] = 1000, 7
    save_image(folder / "good.png", tissue(256, 256), mask)
    save_image(folder / "bare.png", tissue(224, 100, 1))
    save_image(folder / "white.png", np.full((256, 256, 3), GLASS, np.uint8))
    save_image(folder / "other_mask_size.png", tissue(256, 256), mask[:100])
    save_image(folder / "tiny.png", tissue(40, 40))
    rgba = np.dstack([tissue(256, 256, 2), np.full((256, 256), 255, np.uint8)])
    save_image(folder / "rgba.png", rgba)
    (folder / "broken.svs").write_bytes(b"broken")
    save_slide(folder / "slide.tiff", tissue(700, 400, 3), 0.25)


def test_masks_and_what_is_left_out(tmp_path: Path) -> None:
    a_folder_with_everything(tmp_path / "in")
    report, text = run(
        [tmp_path / "in"],
        tmp_path / "out",
        "prepare.mask_values={1000: 1}",
        "prepare.classes={1: nuclei}",
        "prepare.patches_per_shard=4",
        "prepare.contexts=folder",
    )
    reasons = {name: reason for reason, names in report.left_out.items() for name in names}
    assert reasons["broken.svs"].startswith("cannot be read")
    assert reasons["white.png"] == "no tissue"
    assert reasons["other_mask_size.png"].startswith("mask is 256x100, image is 256x256: a mask has")
    assert reasons["tiny.png"].startswith("smaller than an image patch")
    assert reasons["good.png"] == "class id 7 has no name, its pixels are taken as unknown"
    assert all(reason in text for reason in reasons.values())
    assert "3 files without µm per pixel of their own: 0.5 is assumed" in text
    assert set(report.sources) == {"good.png", "bare.png", "rgba.png", "slide.tiff"}
    assert not text.startswith("\n")  # of the bars nothing stays
    assert report.sources["slide.tiff"]["mpp"] == pytest.approx([0.25, 0.25])

    out = tmp_path / "out"
    labels = Labels.load(out / "labels.json")
    assert labels.classes == ("unknown", "nuclei")
    assert labels.contexts == ("in",)
    rows = pq.read_table(out / "patches.parquet").to_pylist()
    assert len(rows) == sum(n for counts in report.patches.values() for n in counts.values())
    assert any(row["height"] < 128 for row in rows if row["kind"] == "image")  # of bare.png
    for row in rows:
        sample = members(out / row["shard"])
        meta = json.loads(sample[row["key"] + ".json"])
        assert {key: meta[key] for key in SAME} == {key: row[key] for key in SAME}
        stored = sample[row["key"] + (".png" if row["kind"] == "image" else ".mask.png")]
        assert Image.open(BytesIO(stored)).size == (row["width"], row["height"])
        assert (f"{row['key']}.mask.png" in sample) == row["labelled"] == (row["source"] == "good.png")
        assert (f"{row['key']}.png" in sample) == (row["kind"] == "image")
    assert json.loads((out / "statistics.json").read_text())["patches"] == report.patches
    with pytest.raises(UserError, match="already holds prepared data"):
        run([tmp_path / "in"], out)


def test_masks_travel_losslessly_and_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    mask = (np.random.default_rng(0).random((256, 256)) * 3).astype(np.uint8)
    picture = tissue(256, 256)
    save_image(tmp_path / "in" / "a.png", picture, mask)
    arguments = ("prepare.classes={1: a, 2: b}", "prepare.test_share=0")
    run([tmp_path / "in"], tmp_path / "one", *arguments)
    run([tmp_path / "in"], tmp_path / "two", *arguments)
    assert checksums(tmp_path / "one") == checksums(tmp_path / "two")
    run([tmp_path / "in"], tmp_path / "inline", *arguments, inline=True)
    assert checksums(tmp_path / "one") == checksums(tmp_path / "inline")

    rows = pq.read_table(tmp_path / "one" / "patches.parquet").to_pylist()
    shard = members(tmp_path / "one" / "image-train-000000.tar")
    images = [row for row in rows if row["kind"] == "image"]
    assert images
    for row in images:
        place = np.s_[row["y"] : row["y"] + 128, row["x"] : row["x"] + 128]
        read = {n: np.asarray(Image.open(BytesIO(shard[f"{row['key']}.{n}"]))) for n in ("png", "mask.png")}
        np.testing.assert_array_equal(read["png"], picture[place])
        np.testing.assert_array_equal(read["mask.png"], mask[place])


def test_stains_label_what_has_no_mask(tmp_path: Path) -> None:
    save_slide(tmp_path / "a.tiff", tissue(640, 512), 0.5)
    report, _ = run([tmp_path / "a.tiff"], tmp_path / "out", "prepare.labels=stain", "prepare.test_share=0.4")
    assert report.labels.classes == ("unknown", "background", "stroma-like", "epithelium-like", "nuclei-rich")
    assert all(counts["train"] and counts["test"] for counts in report.patches.values())
    assert report.class_shares["train"][0] == 0
    assert report.stain_model


def test_a_slide_damaged_inside_costs_only_that_part(tmp_path: Path) -> None:
    path = save_slide(tmp_path / "a.tiff", tissue(1024, 768), 0.5, "zlib")
    raw = bytearray(path.read_bytes())
    tiles = tifffile.TiffFile(path).pages.first.dataoffsets
    raw[tiles[-1] : tiles[-1] + 64] = bytes(64)
    path.write_bytes(raw)
    report, _ = run([path], tmp_path / "out")
    assert [names for reason, names in report.left_out.items() if "cannot be read" in reason] == [["a.tiff"]]
    assert report.patches["image"]["train"]
    assert (tmp_path / "out" / "contact_sheet.png").exists()


def test_user_errors_come_before_any_work(tmp_path: Path) -> None:
    save_image(tmp_path / "in" / "a.png", tissue(256, 256), np.ones((256, 256), np.uint8))
    with pytest.raises(UserError, match=r"prepare\.classes="):
        run([tmp_path / "in"], tmp_path / "out")
    with pytest.raises(UserError, match="no such file"):
        run([tmp_path / "nothing"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="are the same folder"):
        run([tmp_path / "in"], tmp_path / "in")
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "image-train-000000.tar").write_bytes(b"mine")
    with pytest.raises(UserError, match="was not made by diffgen prepare"):
        run([tmp_path / "in"], tmp_path / "backup", "prepare.classes={1: a}")
    assert [path.name for path in (tmp_path / "backup").iterdir()] == ["image-train-000000.tar"]


def test_a_run_that_was_killed_starts_again_with_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_image(tmp_path / "in" / "a.png", tissue(256, 256), np.ones((256, 256), np.uint8))
    arguments = ("prepare.classes={1: a}", "prepare.patches_per_shard=2")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(contact_sheet, "draw", killed)
        with pytest.raises(KeyboardInterrupt):
            run([tmp_path / "in"], tmp_path / "out", *arguments)
    (tmp_path / "out" / "image-train-000099.tar").write_bytes(b"of more sources")
    (tmp_path / "out" / "mask-test-000000.tar.partial").write_bytes(b"half")
    run([tmp_path / "in"], tmp_path / "out", *arguments)
    run([tmp_path / "in"], tmp_path / "afresh", *arguments)
    assert checksums(tmp_path / "out") == checksums(tmp_path / "afresh")


def test_nothing_to_prepare_names_the_reason(tmp_path: Path) -> None:
    save_image(tmp_path / "white.png", np.full((256, 256, 3), 255, np.uint8))
    with pytest.raises(UserError, match=r"nothing could be prepared \(no tissue: white.png\)"):
        run([tmp_path / "white.png"], tmp_path / "out")


@pytest.mark.skipif(not REAL.exists(), reason="the shared slides are not on this machine")
def test_a_real_slide(tmp_path: Path) -> None:
    report, _ = run([REAL], tmp_path / "out", "prepare.labels=stain", "prepare.stride=1")
    assert not report.left_out
    assert report.patches["image"]["train"] > 50
    assert all(share > 0.05 for share in report.class_shares["train"][1:])
