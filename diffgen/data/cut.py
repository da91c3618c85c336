"""From a source to encoded samples: the work of one task, a pure function of the work and the recipe.

A work is a handful of neighbouring patches of one source, read as one region. PNG everywhere: masks
travel losslessly, and the encoder's settings are fixed, so that the same source gives the same bytes.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffgen.appearance import measure
from diffgen.data.maps import open_source, read_labels
from diffgen.data.patches import PatchBox, PatchLayout, Rectangle
from diffgen.data.scan import Scan
from diffgen.data.slides import Slide
from diffgen.data.sources import Source
from diffgen.data.stain import StainModel
from diffgen.files import open_picture
from diffgen.labels import LabelMap, Labels, majority

COMPRESS_LEVEL = 3  # level 6 takes twice as long for 3 % of the size
CELL = 4
"""Patches whose corners lie in one square of so many stored sides are read together."""


@dataclass(frozen=True)
class CutJob:
    """Some neighbouring patches of one source."""

    source: Source
    assumed_mpp: float | None
    context: int
    labelled: bool
    patches: tuple[PatchBox, ...]

    def to_json(self) -> str:
        return json.dumps(
            {
                "source": vars(self.source),
                "assumed_mpp": self.assumed_mpp,
                "context": self.context,
                "labelled": self.labelled,
                "patches": [list(vars(patch).values()) for patch in self.patches],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "CutJob":
        tree = json.loads(text)
        patches = tuple(PatchBox(*values) for values in tree["patches"])
        source = Source(**tree["source"])
        return cls(source, tree["assumed_mpp"], tree["context"], tree["labelled"], patches)


@dataclass(frozen=True)
class Recipe:
    """What is the same for all works."""

    mpp: float
    mask_factor: int
    """Side of a mask pixel in image pixels."""
    labels: Labels
    table: NDArray[np.uint8]
    """(65536,) class id of each value in a mask file."""
    stain: StainModel | None = None
    stain_ids: tuple[int, ...] = ()
    min_known: float = 0.0
    """Least share of known pixels in a mask patch."""


@dataclass(frozen=True)
class EncodedPatch:
    """A patch, encoded."""

    kind: str
    split: str
    meta: dict[str, Any]
    """Of its `KEY.json`; x and y in pixels of the training images, height and width in those stored here."""
    png: bytes | None
    """RGB; None for a mask patch."""
    mask: bytes | None
    """8-bit class ids; None where the source is not labelled."""


def cut_jobs(
    scan: Scan, patches: Sequence[PatchBox], layout: PatchLayout, context: int, labelled: bool
) -> list[CutJob]:
    """The patches of a source as works, in order of place."""
    side = CELL * layout.stored
    cells: dict[tuple[int, int], list[PatchBox]] = {}
    for patch in patches:
        cells.setdefault((patch.y // side, patch.x // side), []).append(patch)
    assumed = scan.mpp[0] if scan.assumed else None
    return [CutJob(scan.source, assumed, context, labelled, tuple(cells[cell])) for cell in sorted(cells)]


def cut(work: CutJob, recipe: Recipe) -> list[EncodedPatch]:
    """All samples of a work, in its order; a mask patch without any label, or too few, is none.

    Raises `LeftOut` if the source cannot be read there.
    """
    slide, _ = open_source(work.source, work.assumed_mpp)
    images = [patch for patch in work.patches if patch.kind == "image"]
    x, y, width, height = _union(images or work.patches)
    picture = slide.read(x, y, width, height, recipe.mpp) if images else None
    left, top, *size = _union(work.patches)
    label_map = _label_map(slide, work, recipe, (left, top, size[0], size[1])) if work.labelled else None
    samples = []
    for patch in work.patches:
        labels = None if label_map is None else _crop(label_map, patch, left, top)
        if patch.kind == "image" and picture is not None:
            samples.append(_sample(work, recipe, patch, labels, _crop(picture, patch, x, y)))
        elif labels is not None and labels.any():
            small = majority(labels, recipe.mask_factor, len(recipe.labels))
            if np.count_nonzero(small) >= recipe.min_known * small.size:
                samples.append(_sample(work, recipe, patch, small, None))
    return samples


def _label_map(slide: Slide, work: CutJob, recipe: Recipe, box: Rectangle) -> LabelMap:
    if work.source.mask:
        return read_labels(work.source, slide, recipe.table, box, recipe.mpp)
    assert recipe.stain is not None, "a labelled source has a mask or a stain model"
    ids = np.asarray(recipe.stain_ids, np.uint8)
    return ids[recipe.stain.label(slide, *box, recipe.mpp)]


def _sample(
    work: CutJob, recipe: Recipe, patch: PatchBox, labels: LabelMap | None, picture: NDArray[np.uint8] | None
) -> EncodedPatch:
    unknown = [1.0] + [0.0] * (len(recipe.labels) - 1)
    stored = labels if picture is None else picture
    assert stored is not None, "a patch has a picture or labels"
    meta = {
        "source": work.source.name,
        "x": patch.x,
        "y": patch.y,
        "height": stored.shape[0],
        "width": stored.shape[1],
        "mpp": recipe.mpp,
        "split": patch.split,
        "labelled": labels is not None,
        "context": work.context,
        "shares": unknown if labels is None else recipe.labels.shares(labels),
    }
    if picture is not None:
        meta["appearance"] = [round(float(value), 5) for value in measure(picture)]
    png = None if picture is None else encode(picture)
    return EncodedPatch(patch.kind, patch.split, meta, png, None if labels is None else encode(labels))


def _union(patches: Sequence[PatchBox]) -> Rectangle:
    left, top = min(p.x for p in patches), min(p.y for p in patches)
    right, bottom = max(p.x + p.width for p in patches), max(p.y + p.height for p in patches)
    return left, top, right - left, bottom - top


def _crop(array: NDArray[np.uint8], patch: PatchBox, left: int, top: int) -> NDArray[np.uint8]:
    return array[patch.y - top : patch.y - top + patch.height, patch.x - left : patch.x - left + patch.width]


def encode(array: NDArray[np.uint8]) -> bytes:
    """PNG of an RGB picture (H, W, 3) or a label map (H, W)."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, "PNG", compress_level=COMPRESS_LEVEL)
    return buffer.getvalue()


def decode(png: bytes) -> NDArray[np.uint8]:
    """The inverse of `encode`."""
    return np.asarray(open_picture(io.BytesIO(png)))
