"""Annotations in XML: ASAP, Aperio ImageScope and HALO."""

from collections import Counter
from collections.abc import Iterable, Iterator
from xml.etree.ElementTree import Element

import numpy as np
import shapely
from shapely.affinity import scale
from shapely.geometry.base import BaseGeometry

from diffgen.data.annotations.shapes import Annotations, Shape, areas, malformed, shapes_of, surround, united

RECTANGLE, ELLIPSE = {"1", "rectangle"}, {"2", "ellipse"}
LINES = {"3", "4", "arrow", "ruler", "line", "measurement"}
POINTS = {"dot", "pointset"}
NO_GROUP = {"", "none"}
UNTOLD = {"", "description"}
"""What ImageScope calls a layer's attribute where nobody has."""


def of_xml(root: Element, name: str) -> Annotations | None:
    """The shapes of an annotation file; None where it is of another kind. `LeftOut` where it is malformed."""
    if root.tag == "ASAP_Annotations":
        return _asap(root, name)
    if root.tag == "Annotations" and root.find("Annotation") is not None:
        return _layers(root, name)
    return Annotations() if root.tag == "Annotations" else None


def _asap(root: Element, name: str) -> Annotations:
    """ASAP: the class is the group; a dot or a set of points are cells."""
    made, shapes = Annotations(), list[Shape]()
    for number, item in enumerate(root.iter("Annotation"), start=1):
        with malformed(f"{name}: annotation {number}"):
            points = sorted(item.iter("Coordinate"), key=lambda point: _number(point.get("Order", "0")))
            group = item.get("PartOfGroup", "").strip()
            label = None if group.lower() in NO_GROUP else group
            shapes += _drawn(label, item.get("Type", "Polygon").lower(), list(_places(points)), made.ignored)
    made.shapes = tuple(shapes)
    return made


def _layers(root: Element, name: str) -> Annotations:
    """ImageScope and HALO: a layer is a class; a negative region is a hole in what its layer has there.

    What is drawn into a hole later is an island.
    """
    made, shapes = Annotations(), list[Shape]()
    for number, layer in enumerate(root.iter("Annotation"), start=1):
        own, positive, negative = _layer_name(layer), list[tuple[int, Shape]](), list[tuple[int, Shape]]()
        for order, region in enumerate(layer.iter("Region"), start=1):
            with malformed(f"{name}: region {order} of layer {own or number}"):
                label = own or _region_name(region) or _colour(layer)
                corners = (point for point in region.iter() if point.tag in {"Vertex", "V"})
                kind = region.get("Type", "0").lower()
                found = list(_drawn(label, kind, list(_places(corners)), made.ignored))
                hole = region.get("NegativeROA", "0").strip().lower() in {"1", "true"}
                (negative if hole else positive).extend((order, shape) for shape in found)
        holes = np.array([shape.geometry for _, shape in negative], np.object_)
        tree = shapely.STRtree(holes)
        for order, shape in positive:
            near = tree.query(shape.geometry, "intersects")
            cut = [
                holes[i]
                for i in near
                if negative[i][0] > order or not shapely.covers(holes[i], shape.geometry)
            ]
            left = areas(shape.geometry.difference(united(cut))) if cut else shape.geometry
            shapes += [] if left is None else [Shape(shape.name, left)]
    made.shapes = tuple(shapes)
    return made


def _layer_name(layer: Element) -> str:
    """A layer's own name, or that of its attribute, where its class stands in MoNuSAC; else nothing."""
    said = [layer.get("Name", "")]
    for item in layer.iterfind("Attributes/Attribute"):
        name = item.get("Name", "").strip()
        said += [item.get("Value", ""), "" if name.lower() in UNTOLD else name]
    return _first(said)


def _region_name(region: Element) -> str:
    """A region's text, or what its attributes say; their names are numbers of columns."""
    values = [item.get("Value", "") for item in region.iterfind("Attributes/Attribute")]
    return _first([region.get("Text", ""), *values])


def _first(said: Iterable[str]) -> str:
    return next((text.strip() for text in said if text.strip()), "")


def _colour(layer: Element) -> str | None:
    colour = layer.get("LineColor")
    if colour is None:
        return None
    value = int(colour)  # blue, green, red from the highest byte on
    return f"#{value & 255:02x}{value >> 8 & 255:02x}{value >> 16 & 255:02x}"


def _places(points: Iterable[Element]) -> Iterator[tuple[float, float]]:
    for point in points:
        yield _number(point.attrib["X"]), _number(point.attrib["Y"])


def _number(text: str) -> float:
    """With a comma too: programs of some countries write one."""
    return float(text.replace(",", "."))


def _drawn(
    label: str | None, kind: str, points: list[tuple[float, float]], ignored: Counter[str]
) -> Iterator[Shape]:
    """The shapes of one region; a rectangle or an ellipse may be given by two corners."""
    if kind in LINES:
        ignored["LineString"] += 1
        return
    yield from shapes_of(label, _geometry(kind, points), ignored)


def _geometry(kind: str, points: list[tuple[float, float]]) -> BaseGeometry:
    enough = surround(points)
    if kind in POINTS:
        return shapely.MultiPoint(points)
    if kind in RECTANGLE and len(points) == 2:
        return shapely.box(*shapely.MultiPoint(points).bounds)
    if kind in ELLIPSE and 2 <= len(points) <= 4:
        left, top, right, bottom = shapely.MultiPoint(points).bounds
        middle = shapely.Point((left + right) / 2, (top + bottom) / 2)
        return scale(middle.buffer(1, 64), (right - left) / 2, (bottom - top) / 2)
    return shapely.Polygon(points) if enough else shapely.Polygon()
