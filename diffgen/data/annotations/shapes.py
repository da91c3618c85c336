"""A drawn shape, and all that are drawn on one slide, in their order."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from diffgen.errors import counted

CELL_RADIUS_UM = 4.0
"""Of a cell that is given as a point."""
AREAS = {"Polygon", "MultiPolygon"}
POINTS = {"Point", "MultiPoint"}


@dataclass(frozen=True)
class Shape:
    """What was drawn: its class's name as it is written, and areas or points in level-0 pixels."""

    name: str | None
    geometry: BaseGeometry


@dataclass(eq=False)
class Annotations:
    """All shapes of a slide, in the order in which they were drawn: a later one lies over an earlier one."""

    shapes: tuple[Shape, ...] = ()
    ignored: Counter[str] = field(default_factory=Counter)
    """Kind of what has no area → number: lines, empty shapes."""
    within_bounds: bool = False
    """Whether coordinates count from the part of the slide that was scanned, as QuPath's do."""


def shapes_of(name: str | None, geometry: BaseGeometry, ignored: Counter[str]) -> Iterator[Shape]:
    """The areas and the points of a geometry, made valid; what is neither is counted."""
    for part in shapely.get_parts(geometry) if geometry.geom_type == "GeometryCollection" else (geometry,):
        if part.geom_type == "GeometryCollection":
            yield from shapes_of(name, part, ignored)
        elif part.is_empty:
            ignored["empty"] += 1
        elif part.geom_type in POINTS:
            yield Shape(name, part)
        elif part.geom_type in AREAS:
            if (area := areas(part)) is None:
                ignored["empty"] += 1
            else:
                yield Shape(name, area)
        else:
            ignored[part.geom_type] += 1


def areas(geometry: BaseGeometry) -> BaseGeometry | None:
    """The areas of a geometry: a bow-tie becomes its two halves. None where it has none."""
    valid = geometry if geometry.is_valid else shapely.make_valid(geometry)
    if valid.geom_type == "GeometryCollection":
        valid = shapely.union_all([part for part in shapely.get_parts(valid) if part.geom_type in AREAS])
    return valid if valid.geom_type in AREAS and valid.area > 0 else None


def ring(points: Sequence[tuple[float, float]]) -> BaseGeometry:
    """A polygon without holes; an empty one of fewer than three points."""
    return shapely.Polygon(points) if len(points) > 2 else shapely.Polygon()


def drawn(geometry: BaseGeometry, mpp: float) -> BaseGeometry:
    """A shape as an area in level-0 pixels of `mpp` µm: points become cells."""
    return geometry.buffer(CELL_RADIUS_UM / mpp) if geometry.geom_type in POINTS else geometry


def class_of(name: str | None, ids: Mapping[str, int]) -> int | None:
    """Class id of a shape's name, without case; of a nested name ("Tumor: Positive") also of a part of it."""
    if name is None:
        return None
    parts = [part.strip().casefold() for part in name.split(":")]
    found = (ids.get(key) for key in (name.strip().casefold(), *reversed(parts)))
    return next((i for i in found if i is not None), None)


def notes(annotations: Annotations) -> list[str]:
    """What a user should know of outlines that are not used."""
    none = sum(shape.name is None for shape in annotations.shapes)
    lines = [f"{counted(none, 'shape')} without a class"] if none else []
    what: Any = ", ".join(f"{n} {kind}" for kind, n in sorted(annotations.ignored.items()))
    return [*lines, *([f"shapes without an area: {what}"] if what else [])]
