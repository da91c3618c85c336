"""Outlines of regions and cells by QuPath, ASAP, ImageScope, HALO and COCO tools, and their rasters."""

from diffgen.data.annotations.files import NoAnnotationsError, load, of_many
from diffgen.data.annotations.raster import amounts, rasterise
from diffgen.data.annotations.shapes import Annotations, Shape, class_of, notes

__all__ = [
    "Annotations",
    "NoAnnotationsError",
    "Shape",
    "amounts",
    "class_of",
    "load",
    "notes",
    "of_many",
    "rasterise",
]
