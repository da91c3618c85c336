"""Annotations in XML: ASAP, Aperio ImageScope and HALO."""

from collections.abc import Iterator
from xml.etree.ElementTree import Element

import shapely
from shapely.affinity import scale
from shapely.geometry.base import BaseGeometry

from diffgen.data.annotations.shapes import Annotations, Shape, areas, ring, shapes_of
from diffgen.data.formats.base import LeftOut

RECTANGLE, ELLIPSE = {"1", "rectangle"}, {"2", "ellipse"}
LINES = {"3", "4", "arrow", "ruler", "line"}


def of_xml(root: Element, name: str) -> Annotations | None:
    """The shapes of an annotation file; None where it is of another kind. `LeftOut` where it is malformed."""
    try:
        if root.tag == "ASAP_Annotations":
            return _asap(root)
        if root.tag == "Annotations" and root.find("Annotation") is not None:
            return _layers(root)
    except (KeyError, TypeError, ValueError, shapely.errors.ShapelyError) as error:
        raise LeftOut(f"{name}: malformed annotations ({type(error).__name__}: {error})") from error
    return Annotations() if root.tag == "Annotations" else None


def _asap(root: Element) -> Annotations:
    """ASAP: the class is the group; a dot or a set of points are cells."""
    made, shapes = Annotations(), list[Shape]()
    for item in root.iter("Annotation"):
        points = sorted(item.iter("Coordinate"), key=lambda point: float(point.attrib["Order"]))
        places = [(float(point.attrib["X"]), float(point.attrib["Y"])) for point in points]
        group = item.get("PartOfGroup")
        kind = item.get("Type", "Polygon")
        geometry: BaseGeometry = shapely.MultiPoint(places) if kind in {"Dot", "PointSet"} else ring(places)
        shapes += shapes_of(None if group in {None, "", "None"} else group, geometry, made.ignored)
    made.shapes = tuple(shapes)
    return made


def _layers(root: Element) -> Annotations:
    """ImageScope and HALO: a layer is a class, and a negative region a hole in the layer's."""
    made, shapes = Annotations(), list[Shape]()
    for layer in root.iter("Annotation"):
        label, positive, holes = _layer_name(layer), list[BaseGeometry](), list[BaseGeometry]()
        for region in layer.iter("Region"):
            kind = region.get("Type", "0").lower()
            if kind in LINES:
                made.ignored["LineString"] += 1
                continue
            target = holes if region.get("NegativeROA", "0").lower() in {"1", "true"} else positive
            target.append(_region(kind, list(_vertices(region))))
        cut = shapely.union_all([area for hole in holes if (area := areas(hole)) is not None])
        for geometry in positive:
            valid = areas(geometry)
            left = geometry if valid is None or cut.is_empty else valid.difference(cut)
            shapes += shapes_of(label, left, made.ignored)
    made.shapes = tuple(shapes)
    return made


def _layer_name(layer: Element) -> str | None:
    """A layer's name: its own, its attribute's, that of a region, or its colour."""
    attributes = [item.get("Name") or item.get("Value") for item in layer.iter("Attribute")]
    regions = [item.get("Text") for item in layer.iter("Region")]
    said = next(
        (text.strip() for text in (layer.get("Name"), *attributes, *regions) if text and text.strip()), None
    )
    colour = layer.get("LineColor")
    if said is None and colour is not None:
        value = int(colour)  # blue, green, red from the highest byte on
        said = f"#{value & 255:02x}{value >> 8 & 255:02x}{value >> 16 & 255:02x}"
    return said


def _vertices(region: Element) -> Iterator[tuple[float, float]]:
    """ImageScope's `Vertex`, HALO's `V`."""
    for point in region.iter():
        if point.tag in {"Vertex", "V"}:
            yield float(point.attrib["X"]), float(point.attrib["Y"])


def _region(kind: str, points: list[tuple[float, float]]) -> BaseGeometry:
    if kind in RECTANGLE | ELLIPSE and len(points) >= 2:
        box = shapely.box(*shapely.MultiPoint(points).bounds)
        if kind in RECTANGLE and len(points) != 2:
            return ring(points)
        if kind in RECTANGLE:
            return box
        left, top, right, bottom = box.bounds
        return scale(box.centroid.buffer(1, 64), (right - left) / 2, (bottom - top) / 2)
    return ring(points)
