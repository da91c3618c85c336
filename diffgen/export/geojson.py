"""Outlines of a label map as QuPath reads them: a FeatureCollection, an annotation for each connected region.

Each region is a feature of its own, so that one can be picked, counted and measured in QuPath; they never
overlap, and holes are holes. What is unknown (class 0) is not outlined. Coordinates are the image's pixels.
"""

import json
from pathlib import Path
from typing import Any

import shapely

from diffgen.export.outlines import outlines
from diffgen.export.shard_set import WholeImage
from diffgen.labels import Labels


def write_geojson(image: WholeImage, path: Path) -> None:
    """Write the outlines of an image's label map, a feature a line."""
    labels = image.shards.labels
    with path.open("w", encoding="utf-8") as file:
        # A member of its own, as GeoJSON allows it: a collection has no properties.
        place = f'"place": {json.dumps(image.place)}, ' if image.place else ""
        file.write(f'{{"type": "FeatureCollection", {place}"features": [')
        for number, outline in enumerate(outlines(image.bands("mask.png"), image.width)):
            file.write(",\n" if number else "\n")
            file.write(json.dumps(feature(outline.polygon, outline.class_id, labels), ensure_ascii=False))
        file.write("\n]}\n")


def feature(polygon: shapely.Polygon, class_id: int, labels: Labels) -> dict[str, Any]:
    """A region as a GeoJSON feature with what QuPath wants to know of it."""
    rings = [polygon.exterior, *polygon.interiors]
    return {
        "type": "Feature",
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[int(x), int(y)] for x, y in ring.coords] for ring in rings],
        },
        "properties": {
            "objectType": "annotation",
            "classification": {"name": labels.classes[class_id], "color": list(labels.colours[class_id])},
        },
    }
