"""GeoJSON as QuPath writes it: parsed JSON → shapes."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import shapely
from shapely.geometry import shape as geometry_of
from shapely.geometry.base import BaseGeometry

from diffgen.data.annotations.shapes import Annotations, Shape, malformed, shapes_of, surround
from diffgen.data.formats.base import LeftOut

GEOMETRIES = (
    "Polygon", "MultiPolygon", "Point", "MultiPoint", "LineString", "MultiLineString", "GeometryCollection",
)  # fmt: skip
NUCLEUS = "nucleus"


def is_geojson(tree: Any) -> bool:
    """Whether a parsed JSON is a FeatureCollection, a Feature, a list of them, or a geometry."""
    first = tree[0] if isinstance(tree, list) and tree else tree
    return isinstance(first, dict) and first.get("type") in ("FeatureCollection", "Feature", *GEOMETRIES)


def of_geojson(tree: Any, name: str) -> Annotations:
    """The shapes of GeoJSON in the order of its features. `LeftOut` names the feature that is malformed.

    A cell's nucleus (`nucleusGeometry`) lies over its cell, with "nucleus" after the cell's class.
    """
    made = Annotations(within_bounds=True)
    shapes: list[Shape] = []
    for number, feature in enumerate(_features(tree, name), start=1):
        with malformed(f"{name}: feature {number}"):
            label = _name(feature.get("properties") or {})
            shapes += _shapes(label, feature.get("geometry", feature), made.ignored)
            if nucleus := feature.get("nucleusGeometry"):
                inner = NUCLEUS if label is None else f"{label}: {NUCLEUS}"
                shapes += _shapes(inner, nucleus, made.ignored)
    made.shapes = tuple(shapes)
    return made


def _features(tree: Any, name: str) -> list[Any]:
    if isinstance(tree, list):
        return [feature for part in tree for feature in _features(part, name)]
    if isinstance(tree, Mapping) and tree.get("type") == "FeatureCollection":
        if not isinstance(tree.get("features"), list):
            raise LeftOut(f"{name}: a FeatureCollection without a list of features")
        return list(tree["features"])
    return [tree]


def _name(properties: Mapping[str, Any]) -> str | None:
    """The class of a feature: a name, the names of a nested class, or nothing."""
    said = properties.get("classification")
    if isinstance(said, Mapping):
        names = said.get("names")
        said = names if isinstance(names, list) and names else said.get("name")
    if isinstance(said, list):
        said = ": ".join(map(str, said))
    return str(said).strip() or None if said is not None else None


def _shapes(name: str | None, geometry: Any, ignored: Counter[str]) -> list[Shape]:
    if geometry is None:
        ignored["empty"] += 1
        return []
    return list(shapes_of(name, _geometry(geometry), ignored))


def _geometry(tree: Mapping[str, Any]) -> BaseGeometry:
    """As shapely reads it, but that an outline of two points is empty: see `surround`."""
    match tree["type"]:
        case "Polygon":
            return _polygon(tree["coordinates"])
        case "MultiPolygon":
            parts = [_polygon(rings) for rings in tree["coordinates"]]
            return shapely.MultiPolygon([part for part in parts if not part.is_empty])
        case "GeometryCollection":
            return shapely.GeometryCollection([_geometry(part) for part in tree["geometries"]])
        case _:
            return geometry_of(tree)


def _polygon(rings: Any) -> BaseGeometry:
    if not rings or not surround(rings[0]):
        return shapely.Polygon()
    return shapely.Polygon(rings[0], [hole for hole in rings[1:] if surround(hole)])
