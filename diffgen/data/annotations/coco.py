"""Outlines in COCO's form, one file for many images: parsed JSON → the shapes of one image."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from diffgen.data.annotations import rle
from diffgen.data.annotations.shapes import Annotations, Shape, malformed, ring, shapes_of
from diffgen.data.formats.base import LeftOut


@dataclass(frozen=True)
class Coco:
    """A file's annotations by image, found once: a file of 5,000 images is asked 5,000 times."""

    name: str
    """Of the file."""
    images: Mapping[str, Sequence[Any]]
    """Path of an image, as it is written → its ids."""
    annotations: Mapping[Any, Sequence[Any]]
    """Id of an image → what is drawn on it, in order."""
    categories: Mapping[Any, str]

    def of(self, image: str) -> Annotations:
        """The shapes of an image, by its path, name or stem.

        Raises `LeftOut` where it is not there, is there in two folders, or its annotations are malformed.
        """
        made, shapes = Annotations(), list[Shape]()
        for item in (item for number in self._ids(image) for item in self.annotations.get(number, ())):
            number = item.get("id", "?") if isinstance(item, Mapping) else "?"
            with malformed(f"{self.name}: annotation {number}"):
                said = item.get("segmentation") or ()
                if not said:
                    made.ignored["box"] += 1
                    continue
                drawn = rle.area(said) if isinstance(said, Mapping) else _polygons(said)
                shapes += shapes_of(self.categories[item["category_id"]], drawn, made.ignored)
        made.shapes = tuple(shapes)
        return made

    def _ids(self, image: str) -> Sequence[Any]:
        """Ids of the image whose path ends most like this one's; a name tells more than a stem."""
        own = _parts(image)
        alike = {path: _alike(own, _parts(path)) for path in self.images}
        most = max(alike.values(), default=(0, False))
        found = [path for path, much in alike.items() if much == most]
        if most[0] == 0:
            raise LeftOut(f"{self.name}: no image {PurePosixPath(image).name} in it")
        if len(found) > 1:
            raise LeftOut(f"{self.name}: several images answer to {image}: {found[0]}, {found[1]}")
        return self.images[found[0]]


def is_coco(tree: Any) -> bool:
    """Whether a parsed JSON is COCO's."""
    return isinstance(tree, dict) and {"images", "annotations", "categories"} <= tree.keys()


def of_coco(tree: Any, name: str) -> Coco:
    """A parsed file, by image. `LeftOut` where it is malformed."""
    images, annotations = defaultdict[str, list[Any]](list), defaultdict[Any, list[Any]](list)
    with malformed(name):
        for item in tree["images"]:
            images[str(item["file_name"])].append(item["id"])
        for item in tree["annotations"]:
            annotations[item["image_id"]].append(item)
        categories = {item["id"]: str(item["name"]) for item in tree["categories"]}
    return Coco(name, images, annotations, categories)


def _polygons(said: Sequence[Sequence[float]]) -> BaseGeometry:
    """Lists of x, y, x, y…: the parts of one object."""
    parts = [ring(list(zip(flat[::2], flat[1::2], strict=True))) for flat in said]
    return shapely.MultiPolygon([part for part in parts if not part.is_empty])


def _parts(path: str) -> tuple[str, ...]:
    """Stem, suffix, and folders from the last one on, without case; of paths of Windows too."""
    pure = PurePosixPath(path.replace("\\", "/").casefold())
    return pure.stem, pure.suffix, *reversed(pure.parts[:-1])


def _alike(one: tuple[str, ...], two: tuple[str, ...]) -> tuple[int, bool]:
    """How many of stem and folders agree, from the last part on; and whether the suffix does."""
    stems = (one[0], *one[2:]), (two[0], *two[2:])
    agree = [a == b for a, b in zip(*stems, strict=False)]
    return [*agree, False].index(False), one[1] == two[1]
