"""Annotation files of each program, small ones made here."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from diffgen.data.annotations import Annotations, NoAnnotationsError, load, notes
from diffgen.data.formats.base import LeftOut

SHARED = Path(__file__).parents[3] / "../shared/data/slides"
SQUARE = [[[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]]
CORNERS: list[list[float]] = [[0, 0], [10, 0], [10, 10], [0, 10]]
BOW_TIE = [[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]]


def feature(geometry: Any, classification: Any = None, **more: Any) -> dict[str, Any]:
    properties = {} if classification is None else {"classification": classification}
    return {"type": "Feature", "geometry": geometry, "properties": properties} | more


def polygon(rings: Any = SQUARE) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": rings}


def read(path: Path, content: Any, image: str = "a.svs") -> Annotations:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return load(str(path), image)


def found(annotations: Annotations) -> list[tuple[str | None, float]]:
    return [(shape.name, round(shape.geometry.area, 6)) for shape in annotations.shapes]


def test_what_qupath_writes(tmp_path: Path) -> None:
    hole = [*SQUARE, [[2, 2], [4, 2], [4, 4], [2, 4], [2, 2]]]
    features = [
        feature(polygon(hole), {"name": "Tumor", "color": [200, 0, 0]}),
        feature(
            {"type": "MultiPolygon", "coordinates": [SQUARE, [[[20, 0], [30, 0], [30, 5], [20, 0]]]]},
            "Stroma",
        ),
        feature(
            {
                "type": "GeometryCollection",
                "geometries": [polygon(), {"type": "Point", "coordinates": [1, 1]}],
            }
        ),
        feature(polygon(BOW_TIE), {"names": ["Tumor", "Positive"]}),
        feature({"type": "LineString", "coordinates": [[0, 0], [1, 1]]}, {"name": "Tumor"}),
        feature(
            polygon(), {"name": "Immune cells"}, nucleusGeometry=polygon([[[1, 1], [3, 1], [3, 3], [1, 1]]])
        ),
        feature(None, {"name": "Tumor"}),
    ]
    for number, tree in enumerate(({"type": "FeatureCollection", "features": features}, features)):
        made = read(tmp_path / f"{number}.geojson", tree)
        assert found(made) == [
            ("Tumor", 96), ("Stroma", 125), (None, 100), (None, 0), ("Tumor: Positive", 50),
            ("Immune cells", 100), ("Immune cells: nucleus", 2),
        ]  # fmt: skip
        assert made.ignored == {"LineString": 1, "empty": 1}
        assert notes(made) == ["2 shapes without a class", "shapes without an area: 1 LineString, 1 empty"]
        assert made.within_bounds
    assert found(read(tmp_path / "one.geojson", features[0])) == [("Tumor", 96)]
    (tmp_path / "a.geojson.gz").write_bytes(gzip.compress(json.dumps(features[0]).encode()))
    assert found(load(str(tmp_path / "a.geojson.gz"), "a.svs")) == [("Tumor", 96)]


def xml(tag: str, inside: str = "", **attributes: object) -> str:
    said = "".join(f' {name}="{value}"' for name, value in attributes.items())
    return f"<{tag}{said}>{inside}</{tag}>"


def test_what_asap_writes(tmp_path: Path) -> None:
    square = xml(
        "Coordinates", "".join(xml("Coordinate", Order=n, X=x, Y=y) for n, (x, y) in enumerate(CORNERS))
    )
    dot = xml("Coordinates", xml("Coordinate", Order=0, X=1, Y=1))
    shapes = [
        xml("Annotation", square, Name="Annotation 0", Type="Polygon", PartOfGroup="tumor"),
        xml("Annotation", square, Name="Annotation 1", Type="Spline", PartOfGroup="None"),
        xml("Annotation", dot, Name="Annotation 2", Type="Dot", PartOfGroup="cells"),
    ]
    groups = xml("AnnotationGroups", xml("Group", Name="tumor", PartOfGroup="None"))
    text = xml("ASAP_Annotations", xml("Annotations", "".join(shapes)) + groups)
    made = read(tmp_path / "a.xml", '<?xml version="1.0"?>' + text)
    assert found(made) == [("tumor", 100), (None, 100), ("cells", 0)]


def region(corners: list[list[float]], point: str = "Vertex", **attributes: object) -> str:
    return xml("Region", xml("Vertices", "".join(xml(point, X=x, Y=y) for x, y in corners)), **attributes)


def test_what_imagescope_writes(tmp_path: Path) -> None:
    inner = [[2.0, 2.0], [4.0, 2.0], [4.0, 4.0], [2.0, 4.0]]
    first = region(CORNERS, NegativeROA=0, Type=0) + region(inner, NegativeROA=1, Type=0)
    first += region([[3, 3], [3.5, 3.5]], NegativeROA=0, Type=1)  # an island in the hole
    first += region([[0, 0], [1, 1]], Type=4)
    second = region([[0, 0], [10, 20]], Type=2) + region([[0, 0], [3, 2]], Type=1)
    layers = xml("Annotation", xml("Regions", first), Id=1, Name="Tumor", LineColor=65280)
    untold = xml("Attributes", xml("Attribute", Name="Description", Id=0, Value=""))
    layers += xml("Annotation", untold + xml("Regions", second), Id=2, Name="", LineColor=65280)
    made = read(tmp_path / "a.xml", xml("Annotations", layers, MicronsPerPixel=0.25))
    assert [name for name, _ in found(made)] == ["Tumor", "Tumor", "#00ff00", "#00ff00"]
    assert [found(made)[i][1] for i in (0, 1, 3)] == [96, 0.25, 6]
    assert found(made)[2][1] == pytest.approx(157.08, rel=1e-3)  # an ellipse of half axes 5 and 10
    assert made.ignored == {"LineString": 1}


@pytest.mark.parametrize(
    ("attribute", "texts", "names"),
    [
        ({"Name": "Description", "Value": ""}, ["tumor", "stroma", ""], ["tumor", "stroma", "#0000ff"]),
        ({"Name": "Description", "Value": "tumor"}, ["a", "b", ""], ["tumor"] * 3),
        ({"Name": "Epithelial", "Value": ""}, ["a", "b", ""], ["Epithelial"] * 3),  # MoNuSAC
    ],
)
def test_where_imagescope_has_the_class(
    tmp_path: Path, attribute: dict[str, str], texts: list[str], names: list[str]
) -> None:
    regions = "".join(region(CORNERS, Type=0, NegativeROA=0, Text=text) for text in texts)
    inside = xml("Attributes", xml("Attribute", Id=0, **attribute)) + xml("Regions", regions)
    made = read(
        tmp_path / "a.xml", xml("Annotations", xml("Annotation", inside, Name="", LineColor=16711680))
    )
    assert [name for name, _ in found(made)] == names


def test_a_negative_region_cuts_what_is_there_in_its_layer(tmp_path: Path) -> None:
    def layer(*regions: tuple[float, float, int]) -> str:
        inside = "".join(region([[a, a], [b, b]], Type=1, NegativeROA=hole) for a, b, hole in regions)
        return xml("Annotation", xml("Regions", inside), Name="t", LineColor=0)

    layers = [
        layer((0, 10, 0), (2, 4, 0), (1, 6, 1), (20, 30, 0)),  # the second is in the hole, and before it
        layer((2, 4, 1), (0, 10, 0)),  # the hole stands first
        layer((0, 10, 0)),  # of another layer
    ]
    made = read(tmp_path / "a.xml", xml("Annotations", "".join(layers)))
    assert [area for _, area in found(made)] == [75, 100, 96, 100]


def test_asap_with_commas_and_by_two_corners(tmp_path: Path) -> None:
    def annotation(kind: str, *places: tuple[str, str]) -> str:
        points = "".join(xml("Coordinate", Order=n, X=x, Y=y) for n, (x, y) in enumerate(places))
        return xml("Annotation", xml("Coordinates", points), Type=kind, PartOfGroup="t")

    shapes = annotation("Polygon", ("0,5", "0"), ("9", "0"), ("9", "9"))
    shapes += annotation("Rectangle", ("0", "0"), ("9", "9"))
    shapes += annotation("PointSet", ("1", "1"), ("5", "5")) + annotation(
        "Measurement", ("1", "1"), ("5", "5")
    )
    made = read(tmp_path / "a.xml", xml("ASAP_Annotations", xml("Annotations", shapes)))
    assert found(made) == [("t", 38.25), ("t", 81), ("t", 0), ("t", 0)]
    assert made.ignored == {"LineString": 1}


def test_what_halo_writes(tmp_path: Path) -> None:
    regions = xml("Regions", region(CORNERS, "V", NegativeROA=0, Type="Polygon", HasEndcaps=0))
    text = xml("Annotations", xml("Annotation", regions, LineColor=65535, Name="Stroma"))
    assert found(read(tmp_path / "a.annotations", text)) == [("Stroma", 100)]


def test_what_coco_tools_write(tmp_path: Path) -> None:
    tree = {
        "images": [
            {"id": 1, "file_name": "x/a.png"},
            {"id": 2, "file_name": "b.png"},
            {"id": 3, "file_name": "d.png"},
        ],
        "categories": [{"id": 7, "name": "gland"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "segmentation": [[0, 0, 10, 0, 10, 10, 0, 10]]},
            {"id": 2, "image_id": 2, "category_id": 7, "segmentation": {"counts": [3, 2, 1], "size": [2, 3]}},
            {"id": 3, "image_id": 3, "category_id": 7, "segmentation": {"counts": [1], "size": [2, 3]}},
        ],
    }
    path = tmp_path / "coco.json"
    assert found(read(path, tree, "a.svs")) == [("gland", 100)]
    assert found(load(str(path), "b.png")) == [("gland", 2)]
    with pytest.raises(LeftOut, match=r"coco\.json: annotation 3 is malformed .*run lengths"):
        load(str(path), "d.png")
    with pytest.raises(LeftOut, match=r"coco\.json: no image c\.png in it"):
        load(str(path), "c.png")


def test_coco_images_are_found_by_their_paths(tmp_path: Path) -> None:
    names = ["train/a.png", "test/a.png", "x\\b.png", "c.png", "c.tif", "d.jpg"]
    squares = [[[0, 0, side, 0, side, side, 0, side]] for side in range(1, 7)]
    tree = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(names)],
        "categories": [{"id": 0, "name": "gland"}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 0, "segmentation": square}
            for n, square in enumerate(squares)
        ],
    }
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(tree))
    asked = {"test/a.png": 4, "slides/train/a.png": 1, "b.png": 9, "c.tif": 25, "C.PNG": 16, "d.svs": 36}
    assert {name: load(str(path), name).shapes[0].geometry.area for name in asked} == asked
    with pytest.raises(
        LeftOut, match=r"coco\.json: several images answer to a\.png: train/a\.png, test/a\.png"
    ):
        load(str(path), "a.png")


def test_coco_objects_of_several_parts_and_of_none(tmp_path: Path) -> None:
    square, other = [0, 0, 10, 0, 10, 10, 0, 10], [5, 5, 15, 5, 15, 15, 5, 15]
    parts: list[Any] = [[square, other], [square, [0, 0, 1, 1]], [], None]
    tree = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 7, "name": "gland"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 7, "segmentation": part} for n, part in enumerate(parts)
        ],
    }
    made = read(tmp_path / "coco.json", tree, "a.png")
    assert found(made) == [("gland", 175), ("gland", 100)]
    assert made.ignored == {"box": 2}


def test_shapes_that_are_drawn_badly(tmp_path: Path) -> None:
    def hole(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
        return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]

    overlapping = {"type": "MultiPolygon", "coordinates": [SQUARE, [hole(5, 5, 15, 15)], [[[1, 1]]]]}
    features = [
        feature(overlapping, "overlapping parts"),
        feature({"type": "MultiPolygon", "coordinates": [BOW_TIE]}, "one part that crosses itself"),
        feature(polygon([*SQUARE, hole(5, 5, 15, 8)]), "a hole over the edge"),
        feature(polygon([*SQUARE, hole(20, 20, 30, 30)]), "a hole elsewhere"),
        feature(polygon([*SQUARE, hole(1, 1, 5, 5), hole(3, 3, 8, 8)]), "holes that overlap"),
        feature(polygon([*SQUARE, [[1, 1], [2, 2]]]), "a hole of two points"),
        feature(polygon([[[0, 0], [1, 1]]]), "two points"),
        feature(polygon([]), "none"),
        feature(polygon([[[0, 0], [1, 1], [2, 2], [0, 0]]]), "a line"),
        feature({"type": "MultiPoint", "coordinates": [[0, 0], [1, 1]]}, "cells"),
    ]
    made = read(tmp_path / "a.geojson", features)
    assert found(made) == [
        ("overlapping parts", 175), ("one part that crosses itself", 50), ("a hole over the edge", 85),
        ("a hole elsewhere", 100), ("holes that overlap", 63), ("a hole of two points", 100), ("cells", 0),
        ("cells", 0),
    ]  # fmt: skip
    assert made.ignored == {"empty": 3}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_in_other_encodings(tmp_path: Path, encoding: str) -> None:
    json_file, xml_file = tmp_path / "a.geojson", tmp_path / "a.xml"
    json_file.write_text(json.dumps(feature(polygon(), "Drüse"), ensure_ascii=False), encoding)
    assert found(load(str(json_file), "a.svs")) == [("Drüse", 100)]
    said = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>\n'
    text = xml("Annotations", xml("Annotation", xml("Regions", region(CORNERS)), Name="Drüse"))
    xml_file.write_text(said + text, encoding)
    assert found(load(str(xml_file), "a.svs")) == [("Drüse", 100)]


@pytest.mark.parametrize("changed", [20, -6])
def test_a_damaged_gzip_file_is_named(tmp_path: Path, changed: int) -> None:
    data = bytearray(gzip.compress(json.dumps(feature(polygon(), "x")).encode()))
    data[changed] ^= 255
    (tmp_path / "a.geojson.gz").write_bytes(data)
    with pytest.raises(LeftOut, match=r"a\.geojson\.gz: not a whole gzip file"):
        load(str(tmp_path / "a.geojson.gz"), "a.svs")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"type": "FeatureCollection"', r"a\.geojson: not readable JSON"),
        (
            {
                "type": "FeatureCollection",
                "features": [feature(polygon(), "x"), feature({"type": "Polygon"})],
            },
            "feature 2",
        ),
        (
            {"type": "FeatureCollection", "features": [feature({"type": "Blob", "coordinates": []})]},
            "feature 1",
        ),
        ({"type": "FeatureCollection"}, r"a\.geojson: a FeatureCollection without a list of features"),
        ({"type": "FeatureCollection", "features": None}, "without a list of features"),
        (
            [feature(polygon()), feature(polygon([[[0, 0], [float("nan"), 0], [1, 1]]]))],
            "feature 2.*no finite",
        ),
        (feature({"type": "Point", "coordinates": [float("inf"), 0]}), "feature 1.*no finite"),
        ([feature(polygon()), None], "feature 2"),
        ("[" * 100_000, r"a\.geojson: not readable JSON"),
        ({"images": [3], "annotations": [], "categories": []}, r"a\.geojson is malformed"),
        (
            {
                "images": [{"id": 1, "file_name": "a.svs"}],
                "categories": [{"id": 7, "name": "gland"}],
                "annotations": [
                    {"id": 3, "image_id": 1, "category_id": 7, "segmentation": [[0, 0, 1e999, 0, 1, 1]]}
                ],
            },
            "annotation 3.*no finite",
        ),
        ("<ASAP_Annotations><Annot", r"a\.geojson: not readable XML"),
        (
            "<Annotations><Annotation Name='t'><Region/>"
            "<Region><V X='x'/></Region></Annotation></Annotations>",
            "region 2 of layer t is malformed",
        ),
        (
            "<ASAP_Annotations><Annotation><Coordinate X='1'/></Annotation></ASAP_Annotations>",
            r"a\.geojson: annotation 1 is malformed",
        ),
    ],
)
def test_what_is_malformed_is_one_line_that_names_it(tmp_path: Path, content: Any, why: str) -> None:
    with pytest.raises(LeftOut, match=why) as caught:
        read(tmp_path / "a.geojson", content)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, NoAnnotationsError)


@pytest.mark.parametrize("content", [{"index": 1, "seed": 0}, {"type": ["x"]}, "<project/>", [1, 2], "3"])
def test_other_json_and_xml_is_no_annotation(tmp_path: Path, content: Any) -> None:
    with pytest.raises(NoAnnotationsError):
        read(tmp_path / "a.json", content)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared slides are not on this machine")
def test_real_files() -> None:
    made = load(str(SHARED / "dlup_qupath05.geojson"), "a.svs")
    assert made.shapes
    cells = load(str(SHARED / "qurad_cell_detections.geojson"), "a.svs")
    assert len(cells.shapes) > 100
