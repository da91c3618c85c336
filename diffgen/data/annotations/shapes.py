"""A drawn shape, and all that are drawn on one slide, in their order."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from diffgen.data.formats.base import LeftOut
from diffgen.errors import counted, one_line

CELL_RADIUS_UM = 4.0
"""Of a cell that is given as a point."""
AREAS = {"Polygon", "MultiPolygon"}
POINTS = {"Point", "MultiPoint"}
NOT_FINITE = "a coordinate is no finite number"


@dataclass(frozen=True)
class Shape:
    """What was drawn: its class's name as it is written, and an area or a point in level-0 pixels."""

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
    """The areas and the points of a geometry, made valid; what is neither is counted.

    Each of several points is a shape. Raises `ValueError` where a coordinate is no finite number.
    """
    if not np.isfinite(shapely.get_coordinates(geometry)).all():
        raise ValueError(NOT_FINITE)
    for part in shapely.get_parts(geometry) if geometry.geom_type == "GeometryCollection" else (geometry,):
        if part.geom_type == "GeometryCollection":
            yield from shapes_of(name, part, ignored)
        elif part.is_empty:
            ignored["empty"] += 1
        elif part.geom_type in POINTS:
            yield from (Shape(name, point) for point in shapely.get_parts(part))
        elif part.geom_type in AREAS:
            if (area := areas(part)) is None:
                ignored["empty"] += 1
            else:
                yield Shape(name, area)
        else:
            ignored[part.geom_type] += 1


def areas(geometry: BaseGeometry) -> BaseGeometry | None:
    """The areas of a geometry, None where it has none: a bow-tie becomes its two halves.

    Parts that overlap are one area, and what of a hole lies beyond its outline cuts nothing: make_valid by
    itself would swap inside and outside in both.
    """
    valid = geometry
    if not geometry.is_valid:
        parts = shapely.get_parts(geometry)
        if len(parts) > 1:
            valid = united(area for part in parts if (area := areas(part)) is not None)
        else:
            outline, *holes = (_filled(ring) for ring in shapely.get_rings(parts))
            valid = outline.difference(united(holes))
    return valid if valid.geom_type in AREAS and valid.area > 0 else None


def _filled(outline: BaseGeometry) -> BaseGeometry:
    """What a closed line surrounds, an odd number of times where it crosses itself."""
    parts = shapely.get_parts(shapely.make_valid(shapely.Polygon(outline)))
    return united(part for part in parts if part.geom_type in AREAS)


def united(geometries: Iterable[BaseGeometry]) -> BaseGeometry:
    """What is in any of them; an empty geometry of none."""
    return shapely.union_all(list(geometries))


def ring(points: Sequence[Sequence[float]]) -> BaseGeometry:
    """A polygon without holes; an empty one of points that surround nothing."""
    return shapely.Polygon(points) if surround(points) else shapely.Polygon()


def surround(points: Sequence[Sequence[float]]) -> bool:
    """Whether there are points enough for an area; contours of single pixels have one or two.

    Raises `ValueError` where a coordinate is no finite number.
    """
    if not np.isfinite(np.asarray(points, np.float64)).all():
        raise ValueError(NOT_FINITE)
    return len(points) > 2


@contextmanager
def malformed(what: str) -> Iterator[None]:
    """What goes wrong inside, as far as a file's content can be the reason, is a `LeftOut` that names it."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError, shapely.errors.ShapelyError) as error:
        raise LeftOut(f"{what} is malformed ({type(error).__name__}: {one_line(error)})") from error


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
