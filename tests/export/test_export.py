"""All kinds of export: what they write, that they resume, and what they refuse."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openslide.deepzoom
import pyarrow.parquet as pq
import pytest
import shapely
import tifffile
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from diffgen.cli import app
from diffgen.errors import UserError
from diffgen.export.export import KINDS, export
from diffgen.labels import Labels
from tests.export.shards import LABELS, MPP, pair, write

QUIET = Console(quiet=True)
PAIRS = [pair(k, 96, 128) for k in range(2)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("shards") / "out", PAIRS)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same as tiles, five in a shard: one shard holds tiles of both."""
    return write(tmp_path_factory.mktemp("tiles") / "out", PAIRS, tile=32, per_shard=5)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_plain_folder(shards: str, tmp_path: Path) -> None:
    out = Path(export(shards, "folder", str(tmp_path / "f"), None, QUIET))
    with (out / "dataset.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["images/000000000.png", "images/000000001.png"]
    for row, (image, ids) in zip(rows, PAIRS, strict=True):
        assert np.array_equal(np.asarray(Image.open(out / row["file"])), image)
        assert np.array_equal(np.asarray(Image.open(out / row["mask"])), ids)
        assert (row["width"], row["height"], row["mpp"], row["seed"]) == ("128", "96", str(MPP), "7")
        shares = [float(row[f"share {name}"]) for name in LABELS.classes]
        assert shares == pytest.approx(LABELS.shares(ids))
    assert [row["context"] for row in rows] == ["", "lung"]
    assert Labels.load(out / "labels.json") == LABELS


def test_plain_folder_of_tiles_says_their_place(tiles: str, tmp_path: Path) -> None:
    out = Path(export(tiles, "folder", str(tmp_path / "f"), None, QUIET))
    with (out / "dataset.csv").open() as file:
        for row in csv.DictReader(file):
            y, x = int(row["y"]), int(row["x"])
            crop = PAIRS[int(row["parent"])][1][y : y + 32, x : x + 32]
            assert np.array_equal(np.asarray(Image.open(out / row["mask"])), crop)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_where_a_region_lies(kind: str, tmp_path: Path) -> None:
    source = write(tmp_path / "out", PAIRS, region=(320, 64))
    out, place = Path(export(source, kind, None, None, QUIET)), {"y": 64, "x": 320, "region": "320,64,128,96"}
    if kind == "folder":
        with (out / "dataset.csv").open() as file:
            found = [{name: row[name] for name in ("parent", *place)} for row in csv.DictReader(file)]
        assert found == [{name: str(value) for name, value in {"parent": k, **place}.items()} for k in (0, 1)]
    elif kind == "hf":
        rows = pq.read_table(out / "data" / "train-000000.parquet", columns=["parent", *place]).to_pylist()
        assert rows == [{"parent": k, **place} for k in (0, 1)]
    else:
        end = {"ome-tiff": ".ome.tif", "geojson": ".geojson", "dzi": ".dzi"}[kind]
        names = [out / f"00000000{k}_x320_y64{end}" for k in (0, 1)]
        assert all(name.exists() for name in names)
        if kind == "geojson":
            assert json.loads(names[1].read_text())["place"] == {"parent": 1, **place}
        if kind == "ome-tiff":
            with tifffile.TiffFile(names[1]) as tif:
                assert "parent: 1; y: 64; x: 320; region: 320,64,128,96" in str(tif.ome_metadata)


@pytest.mark.parametrize("source", ["shards", "tiles"])
def test_geojson_filled_is_the_label_map(source: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    out = Path(export(request.getfixturevalue(source), "geojson", str(tmp_path / "g"), None, QUIET))
    for k, (_, ids) in enumerate(PAIRS):
        tree = json.loads((out / f"00000000{k}.geojson").read_text())
        assert tree["type"] == "FeatureCollection"
        found, y, x = np.zeros_like(ids), *(np.mgrid[:96, :128] + 0.5)
        for feature in tree["features"]:
            said = feature["properties"]
            assert (feature["type"], said["objectType"]) == ("Feature", "annotation")
            number = LABELS.classes.index(said["classification"]["name"])
            assert said["classification"]["color"] == list(LABELS.colours[number])
            found[shapely.contains_xy(shapely.geometry.shape(feature["geometry"]), x, y)] = number
        assert np.array_equal(found, ids)


def test_deep_zoom(tmp_path: Path) -> None:
    """As OpenSlide's own generator cuts it, and its finest level bit for bit the image."""
    image, ids = pair(5, 300, 520)
    out = Path(export(write(tmp_path / "out", [(image, ids)]), "dzi", None, None, QUIET))
    root = ElementTree.parse(out / "000000000.dzi").getroot()
    side, overlap = int(root.attrib["TileSize"]), int(root.attrib["Overlap"])
    Image.fromarray(image).save(tmp_path / "a.png")
    with openslide.ImageSlide(tmp_path / "a.png") as slide:
        theirs = openslide.deepzoom.DeepZoomGenerator(slide, side, overlap)
        assert ElementTree.fromstring(theirs.get_dzi("png")).attrib == root.attrib
        folders = sorted(int(path.name) for path in (out / "000000000_files").iterdir())
        assert folders == list(range(theirs.level_count))
        for level in folders:
            columns, rows = theirs.level_tiles[level]
            names = {f"{column}_{row}.png" for column in range(columns) for row in range(rows)}
            assert {path.name for path in (out / "000000000_files" / str(level)).iterdir()} == names
            for name in names:
                column, row = map(int, name.removesuffix(".png").split("_"))
                tile = np.asarray(Image.open(out / "000000000_files" / str(level) / name))
                expected = np.asarray(theirs.get_tile(level, (column, row)))
                assert tile.shape == expected.shape
                assert level < folders[-1] or np.array_equal(tile, expected)
    painted = np.asarray(Image.open(out / "000000000_mask_files" / str(folders[-1]) / "0_0.png"))
    assert np.array_equal(painted, LABELS.paint(ids)[:255, :255])


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_is_the_same_and_nothing_is_written_twice(kind: str, tiles: str, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    for folder in (whole, out):
        export(tiles, kind, str(folder), None, QUIET)
    assert content(whole) == content(out)
    written = [path for path in out.rglob("*") if path.is_file()]
    kept = [p for p in written if p.suffix in {".png", ".tif", ".geojson", ".parquet", ".dzi"}]
    times = {path: path.stat().st_mtime_ns for path in kept[1:]}
    kept[0].unlink()
    if kind == "dzi":  # killed after the tiles, before the file that says they are whole
        (out / "000000000.dzi").unlink(missing_ok=True)
        (out / "000000000_files" / "0" / "0_0.png").write_bytes(b"half")
    export(tiles, kind, str(out), None, QUIET)
    assert content(whole) == content(out)
    if kind != "dzi":
        assert {path: path.stat().st_mtime_ns for path in kept[1:]} == times


@pytest.mark.parametrize("tile", [None, 32])
@pytest.mark.parametrize("kind", KINDS)
def test_images_that_were_added_are_exported_too(kind: str, tile: int | None, tmp_path: Path) -> None:
    """A shard that was short is longer then."""
    pairs = [*PAIRS, pair(2, 96, 128)]
    for some in (pairs[:1], pairs):
        export(write(tmp_path / "out", some, tile), kind, str(tmp_path / "grown"), None, QUIET)
    export(str(tmp_path / "out"), kind, str(tmp_path / "at once"), None, QUIET)
    assert content(tmp_path / "grown") == content(tmp_path / "at once")


def test_from_and_to_a_url(shards: str, tmp_path: Path) -> None:
    copied = f"memory://{tmp_path.name}"
    import fsspec

    fsspec.filesystem("memory").put(shards, copied, recursive=True)
    for kind in KINDS:
        here = Path(export(shards, kind, str(tmp_path / kind), None, QUIET))
        there = export(copied, kind, None, None, QUIET)
        assert there == f"{copied}-{kind}"
        files = fsspec.filesystem("memory").find(there)
        names = {name.partition(f"{tmp_path.name}-{kind}/")[2] for name in files}
        assert names - {".lock.json"} == set(content(here)), kind


def test_an_image_without_all_tiles_is_left_out(tmp_path: Path, capsys: Any) -> None:
    shards = write(tmp_path / "out", PAIRS, tile=32, per_shard=5, failed=[3])
    out = Path(export(shards, "ome-tiff", None, None, QUIET))
    assert {path.name for path in out.glob("*.tif")} == {"000000001.ome.tif", "000000001_mask.ome.tif"}
    assert "image 000000000 is left out: 1 tile of it could not be made" in capsys.readouterr().err


def test_what_is_refused(shards: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"export to 'svs': expected ome-tiff, geojson, folder, hf or dzi"):
        export(shards, "svs", None, None, QUIET)
    with pytest.raises(UserError, match="--jpeg is of dzi and ome-tiff, not of folder"):
        export(shards, "folder", None, 90, QUIET)
    with pytest.raises(UserError, match="--jpeg 0: a quality lies between 1 and 100"):
        export(shards, "dzi", None, 0, QUIET)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").touch()
    with pytest.raises(UserError, match=r"is not empty \(thesis.doc\) and was not made by diffgen export"):
        export(shards, "folder", str(tmp_path / "mine"), None, QUIET)
    export(shards, "folder", str(tmp_path / "f"), None, QUIET)
    with pytest.raises(UserError, match=r"holds another export: kind folder → geojson; choose another --out"):
        export(shards, "geojson", str(tmp_path / "f"), None, QUIET)


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_without_a_name_is_refused_by_name(kind: str, shards: str, tmp_path: Path) -> None:
    copy = shutil.copytree(shards, tmp_path / "out")
    Labels(LABELS.classes[:3]).save(copy / "labels.json")
    with pytest.raises(UserError, match=r"shard-000000.tar: 000000000.mask.png holds class 3, which labels"):
        export(str(copy), kind, None, None, QUIET)


def test_more_classes_than_8_bits_hold_are_refused(shards: str, tmp_path: Path) -> None:
    copy = shutil.copytree(shards, tmp_path / "out")
    tree = LABELS.to_json()
    tree["classes"] = [
        {"id": i, "name": f"c{i}" if i else "unknown", "colour": "#000000"} for i in range(300)
    ]
    (copy / "labels.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match=rf"{copy}: labels: 300 classes do not fit 8 bits"):
        export(str(copy), "folder", None, None, QUIET)


def test_a_damaged_shard_is_named(shards: str, tmp_path: Path) -> None:
    copy = shutil.copytree(shards, tmp_path / "out")
    (copy / "shard-000000.tar").write_bytes(b"no tar")
    with pytest.raises(UserError, match=r"shard-000000.tar: 000000000.* cannot be read"):
        export(str(copy), "folder", None, None, QUIET)


def test_the_command_and_the_option_of_synthesize(tiny_bundle: Path, tmp_path: Path) -> None:
    told = ["synthesize", "--bundle", str(tiny_bundle), "--inline", "--n", "1", "--size", "64"]
    told += ["--emit", "tiles", "--tile", "32", "--out", str(tmp_path / "out")]
    wrong = CliRunner().invoke(app, [*told, "--format", "svs"])
    assert isinstance(wrong.exception, UserError)
    assert not (tmp_path / "out").exists()
    for words in ([*told, "--format", "ome-tiff"], ["export", str(tmp_path / "out"), "--to", "folder"]):
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        kind = words[-1]
        assert f"{kind}: {tmp_path / 'out'}-{kind}" in done.output.replace("\n", "")
    whole = tifffile.imread(tmp_path / "out-ome-tiff" / "000000000.ome.tif")
    tile = np.asarray(Image.open(tmp_path / "out-folder" / "images" / "000000003.png"))
    assert np.array_equal(whole[32:, 32:], tile)
