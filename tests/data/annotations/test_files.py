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
    first += region([[0, 0], [1, 1]], Type=4)
    second = region([[0, 0], [10, 20]], Type=2) + region([[0, 0], [3, 2]], Type=1)
    layers = xml("Annotation", xml("Regions", first), Id=1, Name="Tumor", LineColor=65280)
    layers += xml("Annotation", xml("Attributes") + xml("Regions", second), Id=2, Name="", LineColor=65280)
    made = read(tmp_path / "a.xml", xml("Annotations", layers, MicronsPerPixel=0.25))
    assert [name for name, _ in found(made)] == ["Tumor", "#00ff00", "#00ff00"]
    assert found(made)[0][1] == 96
    assert found(made)[1][1] == pytest.approx(157.08, rel=1e-3)  # an ellipse of half axes 5 and 10
    assert found(made)[2][1] == 6
    assert made.ignored == {"LineString": 1}


def test_what_halo_writes(tmp_path: Path) -> None:
    regions = xml("Regions", region(CORNERS, "V", NegativeROA=0, Type="Polygon", HasEndcaps=0))
    text = xml("Annotations", xml("Annotation", regions, LineColor=65535, Name="Stroma"))
    assert found(read(tmp_path / "a.annotations", text)) == [("Stroma", 100)]


def test_what_coco_tools_write(tmp_path: Path) -> None:
    tree = {
        "images": [{"id": 1, "file_name": "x/a.png"}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 7, "name": "gland"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "segmentation": [[0, 0, 10, 0, 10, 10, 0, 10]]},
            {"id": 2, "image_id": 2, "category_id": 7, "segmentation": {"counts": [1], "size": [1, 1]}},
        ],
    }
    path = tmp_path / "coco.json"
    assert found(read(path, tree, "a.svs")) == [("gland", 100)]
    with pytest.raises(LeftOut, match=r"coco\.json: annotation 2 is run-length encoded"):
        load(str(path), "b.png")
    with pytest.raises(LeftOut, match=r"coco\.json: no image c\.png in it"):
        load(str(path), "c.png")


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
        ("<ASAP_Annotations><Annot", r"a\.geojson: not readable XML"),
        (
            "<ASAP_Annotations><Annotation><Coordinate X='1'/></Annotation></ASAP_Annotations>",
            "malformed annotations",
        ),
    ],
)
def test_what_is_malformed_is_one_line_that_names_it(tmp_path: Path, content: Any, why: str) -> None:
    with pytest.raises(LeftOut, match=why) as caught:
        read(tmp_path / "a.geojson", content)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, NoAnnotationsError)


@pytest.mark.parametrize("content", [{"index": 1, "seed": 0}, "<project/>", [1, 2], "3"])
def test_other_json_and_xml_is_no_annotation(tmp_path: Path, content: Any) -> None:
    with pytest.raises(NoAnnotationsError):
        read(tmp_path / "a.json", content)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared slides are not on this machine")
def test_real_files() -> None:
    made = load(str(SHARED / "dlup_qupath05.geojson"), "a.svs")
    assert made.shapes
    cells = load(str(SHARED / "qurad_cell_detections.geojson"), "a.svs")
    assert len(cells.shapes) > 100
