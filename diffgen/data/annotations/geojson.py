"""GeoJSON as QuPath writes it, and outlines in COCO's form: parsed JSON → shapes."""

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import shapely
from shapely.geometry import shape as geometry_of

from diffgen.data.annotations.shapes import Annotations, Shape, ring, shapes_of
from diffgen.data.formats.base import LeftOut

GEOMETRIES = {
    "Polygon", "MultiPolygon", "Point", "MultiPoint", "LineString", "MultiLineString", "GeometryCollection",
}  # fmt: skip
NUCLEUS = "nucleus"


def is_geojson(tree: Any) -> bool:
    """Whether a parsed JSON is a FeatureCollection, a Feature, a list of them, or a geometry."""
    first = tree[0] if isinstance(tree, list) and tree else tree
    return isinstance(first, dict) and first.get("type") in {"FeatureCollection", "Feature", *GEOMETRIES}


def of_geojson(tree: Any, name: str) -> Annotations:
    """The shapes of GeoJSON in the order of its features. `LeftOut` names the feature that is malformed.

    A cell's nucleus (`nucleusGeometry`) lies over its cell, with "nucleus" after the cell's class.
    """
    made = Annotations(within_bounds=True)
    shapes: list[Shape] = []
    for number, feature in enumerate(_features(tree), start=1):
        try:
            label = _name(feature.get("properties") or {})
            shapes += _shapes(label, feature.get("geometry", feature), made.ignored)
            if nucleus := feature.get("nucleusGeometry"):
                inner = NUCLEUS if label is None else f"{label}: {NUCLEUS}"
                shapes += _shapes(inner, nucleus, made.ignored)
        except (
            AttributeError,
            KeyError,
            LookupError,
            TypeError,
            ValueError,
            shapely.errors.ShapelyError,
        ) as error:
            raise LeftOut(f"{name}: feature {number} is malformed ({error})") from error
    made.shapes = tuple(shapes)
    return made


def _features(tree: Any) -> list[Any]:
    if isinstance(tree, list):
        return [feature for part in tree for feature in _features(part)]
    if isinstance(tree, Mapping) and tree.get("type") == "FeatureCollection":
        return list(tree["features"])
    return [tree]


def _name(properties: Mapping[str, Any]) -> str | None:
    """The class of a feature: a name, the names of a nested class, or nothing."""
    said = properties.get("classification")
    if isinstance(said, Mapping):
        names = said.get("names")
        said = ": ".join(map(str, names)) if isinstance(names, list) and names else said.get("name")
    return str(said).strip() or None if said is not None else None


def _shapes(name: str | None, geometry: Any, ignored: Counter[str]) -> list[Shape]:
    if geometry is None:
        ignored["empty"] += 1
        return []
    return list(shapes_of(name, geometry_of(geometry), ignored))


def is_coco(tree: Any) -> bool:
    """Whether a parsed JSON is COCO's."""
    return isinstance(tree, dict) and {"images", "annotations", "categories"} <= tree.keys()


def of_coco(tree: Any, image: str, name: str) -> Annotations:
    """The polygons of one image of a COCO file, by its name or stem. `LeftOut` where it is not there."""
    pure = PurePosixPath(image)
    try:
        numbers = {
            item["id"]
            for item in tree["images"]
            if PurePosixPath(item["file_name"]).name in {pure.name, f"{pure.stem}.png"}
            or PurePosixPath(item["file_name"]).stem == pure.stem
        }
        categories = {item["id"]: str(item["name"]) for item in tree["categories"]}
        if not numbers:
            raise LeftOut(f"{name}: no image {pure.name} in it")
        made, shapes = Annotations(), list[Shape]()
        for item in tree["annotations"]:
            if item["image_id"] in numbers:
                if not isinstance(item["segmentation"], list):
                    raise LeftOut(
                        f"{name}: annotation {item['id']} is run-length encoded; only polygons are read"
                    )
                for flat in item["segmentation"]:
                    polygon = ring(list(zip(flat[::2], flat[1::2], strict=True)))
                    shapes += shapes_of(categories[item["category_id"]], polygon, made.ignored)
    except (KeyError, TypeError, ValueError) as error:
        raise LeftOut(f"{name}: malformed COCO ({type(error).__name__}: {error})") from error
    made.shapes = tuple(shapes)
    return made
