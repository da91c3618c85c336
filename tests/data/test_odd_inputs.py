"""A laboratory's files as they are, each through `prepare`: what becomes of them is right, or is said."""

import csv
import json
import os
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image
from rich.console import Console

from diffgen.config import load
from diffgen.data.prepare import prepare
from diffgen.data.report import Report
from diffgen.errors import UserError
from tests.data.pictures import save_image, save_slide, tissue

SMALL = ["image_model.patch=16", "mask_model.patch=8", "mask_model.attention=[8]", "prepare.assume_mpp=0.5"]
ABC = "prepare.classes=[a, b, c]"
IDS = np.kron(np.array([[1, 2], [3, 0]], np.uint8), np.ones((128, 128), np.uint8))


def run(sources: list[Path], *said: str, dry_run: bool = False) -> tuple[Report, str]:
    """The report, and what was printed; prepared beside the first source."""
    console = Console(record=True, width=200, file=StringIO())
    folder = sources[0] if sources[0].is_dir() else sources[0].parent
    settings = load(None, [*SMALL, *said])
    out = folder.parent / "out"
    return prepare([str(s) for s in sources], out, settings, console, True, dry_run), console.export_text()


def rows(folder: Path) -> dict[str, dict[str, str]]:
    """The table of all files."""
    with (folder.parent / "out" / "sources.csv").open() as file:
        return {row["file"]: row for row in csv.DictReader(file)}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.mark.parametrize(
    "mask",
    [
        "a_mask.tif",
        "a_mask.PNG",
        "a_anno.bmp",
        "a-labelled.png",
        "a.mask.png",
        "a.png_mask.png",
        "masks/a.png",
    ],
)
def test_a_mask_of_any_usual_name_is_the_pictures(place: Path, mask: str) -> None:
    save_image(place / "a.png", tissue(256, 256))
    (place / "masks").mkdir()
    Image.fromarray(IDS).save(place / mask)
    report, _ = run([place], ABC)
    assert list(report.sources) == ["a.png"]
    assert not report.left_out
    assert report.class_shares["train"] == pytest.approx([0.25] * 4, abs=0.01)
    assert rows(place)["a.png"]["labels"] == Path(mask).name


@pytest.mark.parametrize("size", [(256, 256), (128, 128), (64, 64), (255, 256)])
def test_a_mask_may_be_smaller(place: Path, size: tuple[int, int]) -> None:
    save_image(place / "a.png", tissue(256, 256))
    Image.fromarray(IDS).resize(size, Image.Resampling.NEAREST).save(place / "a_mask.png")
    report, _ = run([place], ABC)
    assert report.class_shares["train"] == pytest.approx([0.25] * 4, abs=0.01)
    assert ("a pixel off" in rows(place)["a.png"]["problem"]) == (size == (255, 256))


def test_an_instance_mask_is_refused_or_made_a_class(place: Path) -> None:
    save_image(place / "a.png", tissue(256, 256))
    mask = np.zeros((256, 256), np.uint16)
    for n, (y, x) in enumerate(np.ndindex(16, 16)):
        mask[16 * y + 2 : 16 * y + 14, 16 * x + 2 : 16 * x + 14] = n + 1
    Image.fromarray(mask).save(place / "a_mask.png")
    with pytest.raises(
        UserError, match=r"looks like an instance mask.*256 objects.*prepare\.instances=nuclei"
    ):
        run([place], ABC)
    report, _ = run([place], "prepare.instances=nuclei", "prepare.rest=other")
    assert report.labels.classes == ("unknown", "nuclei", "other")
    assert report.class_shares["train"] == pytest.approx([0, (12 / 16) ** 2, 1 - (12 / 16) ** 2], abs=0.01)


def test_white_is_the_one_class_and_of_several_a_line_says_how(place: Path) -> None:
    save_image(place / "a.png", tissue(256, 256), (IDS == 1).astype(np.uint8) * 255)
    _, said = run([place], ABC, dry_run=True)
    assert "class id 255 has no name" in said
    assert "prepare.mask_values={255: 1}" in said
    report, _ = run([place], "prepare.classes=[gland]")
    assert report.class_shares["train"] == pytest.approx([0.75, 0.25], abs=0.01)


def test_colours_become_classes_by_a_table(place: Path) -> None:
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)], np.uint8)
    save_image(place / "a.png", tissue(256, 256), colours[IDS])
    with pytest.raises(UserError, match=r"classes are colours.*prepare\.mask_colours"):
        run([place], ABC)
    report, _ = run([place], ABC, "prepare.mask_colours={'#ff0000': 1, '#00ff00': 2, '#0000ff': 3}")
    assert report.class_shares["train"] == pytest.approx([0.25] * 4, abs=0.01)


def test_a_label_map_with_a_pictures_name_is_no_picture(place: Path) -> None:
    save_image(place / "a.png", tissue(256, 256))
    Image.fromarray(IDS).save(place / "ids.png")
    Image.fromarray(np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)], np.uint8)[IDS]).save(
        place / "colours.png"
    )
    report, _ = run([place])
    reasons = {name: reason for reason, names in report.left_out.items() for name in names}
    assert reasons["ids.png"].startswith("one channel")
    assert reasons["colours.png"].startswith("looks like a label map")
    assert list(report.sources) == ["a.png"]


def test_black_is_no_tissue_and_its_share_is_told(place: Path) -> None:
    picture = tissue(512, 512)
    picture[:, 256:] = 0
    save_image(place / "a.png", picture)
    report, _ = run([place], "prepare.min_tissue=0.9")
    index = pq.read_table(place.parent / "out" / "patches.parquet").to_pylist()
    assert all(row["x"] + row["width"] <= 280 for row in index)
    assert "is black" in rows(place)["a.png"]["problem"]
    assert report.patches["image"]["train"]


def test_a_hidden_copy_is_passed_by_and_a_copy_stays_on_the_same_side(place: Path) -> None:
    for number in range(12):
        save_image(place / f"{number:02d}.png", tissue(256, 256, number))
    save_image(place / "copy.png", tissue(256, 256, 3))
    save_image(place / ".ipynb_checkpoints" / "00.png", tissue(256, 256, 0))
    report, said = run([place], "prepare.test_share=0.5")
    assert len(report.sources) == 13
    assert report.sources["copy.png"]["parts"].keys() == report.sources["03.png"]["parts"].keys()
    assert "the same picture as 03.png" in said


def test_a_patient_is_never_on_both_sides(place: Path) -> None:
    lines = ["file,patient,context"]
    for number in range(8):
        save_image(place / f"{number}.png", tissue(512, 512, number))
        lines.append(f"{number},P{number // 4},lung")
    table = place.parent / "patients.csv"
    table.write_text("\n".join(lines))
    report, _ = run([place], f"prepare.patients={table}", "prepare.test_share=0.3")
    sides = {name: (set(about["parts"]), int(name[0]) // 4) for name, about in report.sources.items()}
    assert {frozenset(parts) for parts, _ in sides.values()} == {frozenset({"train"}), frozenset({"test"})}
    for patient in (0, 1):
        assert len({frozenset(parts) for parts, own in sides.values() if own == patient}) == 1
    assert report.labels.contexts == ("lung",)


def test_the_scale_is_the_files_the_overrides_or_the_assumed_one(place: Path) -> None:
    save_slide(place / "own.tif", tissue(512, 512), 0.25)
    save_slide(place / "wrong.tif", tissue(512, 512, 1), 1.0)
    save_image(place / "none.png", tissue(256, 256, 2))
    report, _ = run([place], "prepare.mpp_override={'wrong.*': 0.5}")
    scales = {name: about["mpp"][0] for name, about in report.sources.items()}
    assert scales == {"own.tif": pytest.approx(0.25), "wrong.tif": 0.5, "none.png": 0.5}
    assert rows(place)["wrong.tif"]["own_mpp"] == "1"


def outline(name: str | None, *corners: tuple[int, int]) -> dict[str, Any]:
    ring = [list(corner) for corner in (*corners, corners[0])]
    properties = {} if name is None else {"classification": {"name": name}}
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def square(left: int, top: int, side: int) -> list[tuple[int, int]]:
    return [(left, top), (left + side, top), (left + side, top + side), (left, top + side)]


def test_outlines_of_qupath_become_label_maps(place: Path) -> None:
    save_slide(place / "slide.tif", tissue(512, 512), 0.5)
    features = [
        outline("Stroma", *square(0, 0, 512)), outline("Tumor", *square(128, 128, 256)),
        outline(None, *square(0, 0, 50)), outline("Region*", *square(0, 0, 512)),
    ]  # fmt: skip
    (place / "slide.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    report, said = run([place], "prepare.classes=[tumor, stroma]", "prepare.test_share=0")
    assert report.class_shares["train"][0] == 0
    assert report.class_shares["train"][1] > 0.2
    assert rows(place)["slide.tif"]["labels"] == "slide.geojson"
    assert "1 shape without a class" in rows(place)["slide.tif"]["problem"]
    table = {
        line.split()[0]: line.split()[1:]
        for line in said.splitlines()
        if line.startswith(("Tumor", "Str", "Reg"))
    }
    assert table["Tumor"] == ["tumor", "1", "1", "0.01638"]
    assert table["Region*"][:2] == ["left", "out"]


@pytest.mark.parametrize("given", ["prepare.classes=[tumor]", "prepare.rest=other"])
@pytest.mark.parametrize("name", ["Ignore*", "exclude", "_2"])
def test_what_is_excluded_is_unknown(place: Path, name: str, given: str) -> None:
    save_slide(place / "slide.tif", tissue(512, 512), 0.5)
    drawn = [outline("tumor", *square(0, 0, 512)), outline(name, *square(0, 0, 256))]
    (place / "slide.geojson").write_text(json.dumps(drawn))
    more = ['prepare.unknown=["_2"]'] if name == "_2" else []
    report, _ = run([place], given, "prepare.test_share=0", "prepare.stride=1", *more)
    assert name not in report.labels.classes
    assert report.class_shares["train"][0] == pytest.approx(0.25)


def test_names_of_outlines_are_the_classes_where_none_are_given(place: Path) -> None:
    save_slide(place / "slide.tif", tissue(512, 512), 0.5)
    tree = [
        outline("Tumor", *square(0, 0, 256)),
        outline("stroma", *square(256, 0, 256)),
        outline("TUMOR", *square(0, 256, 99)),
    ]
    (place.parent / "drawn").mkdir()
    (place.parent / "drawn" / "slide.geojson").write_text(json.dumps(tree))
    report, _ = run([place], f"prepare.annotations={place.parent / 'drawn'}", "prepare.rest=other")
    assert report.labels.classes == ("unknown", "other", "stroma", "TUMOR")
    assert report.class_shares["train"][0] == 0


def test_outlines_of_one_slide_are_not_drawn_on_another(place: Path) -> None:
    for number, name in enumerate(("a.tif", "b.tif")):
        save_slide(place / name, tissue(512, 512, number), 0.5)
    (place.parent / "drawn").mkdir()
    tree = [outline("Tumor", *square(0, 0, 512))]
    (place.parent / "drawn" / "a.geojson").write_text(json.dumps(tree))
    run([place], f"prepare.annotations={place.parent / 'drawn'}")
    assert {name: row["labels"] for name, row in rows(place).items()} == {"a.tif": "a.geojson", "b.tif": ""}


def test_one_coco_file_is_of_all_pictures(place: Path) -> None:
    for number, name in enumerate(("a.png", "b.png")):
        save_image(place / name, tissue(256, 256, number))
    corners = [0, 0, 256, 0, 256, 256, 0, 256]
    tree = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 1, "name": "gland"}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "segmentation": [corners]} for n in (1, 2)
        ],
    }
    (place.parent / "all.json").write_text(json.dumps(tree))
    report, _ = run([place], f"prepare.annotations={place.parent / 'all.json'}")
    assert report.class_shares["train"] == [0, 1]
    assert {row["labels"] for row in rows(place).values()} == {"all.json"}


def test_json_that_is_no_annotation_is_ignored(place: Path) -> None:
    """What `diffgen synthesize` writes, unpacked."""
    save_image(place / "000000000.png", tissue(256, 256))
    Image.fromarray(IDS).save(place / "000000000.mask.png")
    (place / "000000000.json").write_text('{"index": 0, "seed": 1}')
    save_image(place / "000000001.png", tissue(256, 256, 1))
    (place / "000000001.json").write_text('{"index": 1, "seed": 1}')
    report, _ = run([place], ABC)
    assert list(report.sources) == ["000000000.png", "000000001.png"]
    assert not report.left_out
    assert rows(place)["000000001.png"]["problem"] == "not used: 000000001.json: no GeoJSON, and no COCO"


@pytest.mark.parametrize("compression", ["lzw", "jpeg", "deflate", "zstd"])
def test_compressed_tiffs_are_read(place: Path, compression: str) -> None:
    tifffile.imwrite(place / "a.tif", tissue(256, 256), compression=compression, photometric="rgb")
    assert list(run([place])[0].sources) == ["a.tif"]


def test_channels_as_pages_are_a_picture_in_colour(place: Path) -> None:
    planes = np.moveaxis(tissue(256, 256), 2, 0)
    about = {"axes": "CYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    tifffile.imwrite(place / "a.ome.tif", planes, photometric="minisblack", metadata=about)
    save_image(place / "b.png", np.asarray(Image.fromarray(tissue(256, 256)).resize((512, 512))))
    report, _ = run([place], "prepare.mpp=0.25")
    assert report.sources["a.ome.tif"]["mpp"] == [0.25, 0.25]


def test_a_dry_run_writes_nothing(place: Path) -> None:
    save_image(place / "a.png", tissue(256, 256), IDS)
    _, said = run([place], ABC, dry_run=True)
    assert "value 1" in said
    assert not (place.parent / "out").exists()


def test_a_turned_picture_has_the_mask_that_is_seen_and_no_doubtful_outlines(place: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(tissue(256, 192)).save(place / name, exif=exif, quality=95)
    Image.fromarray(IDS[:, :192]).save(place / "a_mask.png")
    features = [outline("a", *square(0, 0, 128))]
    (place / "b.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    _, _ = run([place], ABC)
    table = rows(place)
    assert table["a.jpg"]["size"] == "192x256"
    assert "save it upright" in table["b.jpg"]["problem"]


def test_a_tiff_that_is_to_be_turned_is_left_out(place: Path) -> None:
    save_image(place / "a.png", tissue(256, 256))
    tifffile.imwrite(place / "b.tif", tissue(256, 256, 1), extratags=[(274, "H", 1, 3, True)])
    run([place])
    assert "vips autorot" in rows(place)["b.tif"]["problem"]


def test_what_of_a_file_is_not_read_is_said(place: Path) -> None:
    tifffile.imwrite(place / "a.tif", np.stack([tissue(256, 256), tissue(256, 256, 1)]), photometric="rgb")
    run([place])
    assert "of 2 pages the first is read" in rows(place)["a.tif"]["problem"]


def test_a_name_that_is_no_text_is_left_out(place: Path) -> None:
    save_image(place / "a.png", tissue(256, 256))
    save_image(place / "b.png", tissue(256, 256, 1))
    (place / "b.png").rename(os.fsdecode(os.fsencode(place) + b"/b\xff.png"))
    run([place])
    assert "not UTF-8" in rows(place)["b?.png"]["problem"]


def test_a_mask_of_two_pages_is_refused(place: Path) -> None:
    for name in ("a", "b"):
        save_image(place / f"{name}.png", tissue(256, 256, ord(name)))
    tifffile.imwrite(place / "a_mask.tif", np.stack([IDS, IDS]), photometric="minisblack")
    Image.fromarray(IDS).save(place / "b_mask.png")
    run([place], ABC)
    assert "has 2 pages" in rows(place)["a.png"]["problem"]
