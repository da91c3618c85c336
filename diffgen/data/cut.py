"""From a source to encoded patches: a pure function of the job, the settings and the classes.

PNG everywhere: masks travel losslessly, and the encoder's settings are fixed, so that the same source gives
the same bytes.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffgen.appearance import measure
from diffgen.config import Settings
from diffgen.data.classes import Classes
from diffgen.data.plan import PatchBox, PatchLayout, Rectangle, SourcePlan
from diffgen.data.scan import opened
from diffgen.data.sources import Source
from diffgen.labels import LabelMap, majority
from diffgen.shards import open_picture

COMPRESS_LEVEL = 3  # level 6 takes twice as long for 3 % of the size
CELL = 4
"""Patches whose corners lie in one square of so many stored sides are read together."""


@dataclass(frozen=True)
class CutJob:
    """Some neighbouring patches of one source, read as one region."""

    source: Source
    patches: tuple[PatchBox, ...]

    @property
    def name(self) -> str:
        return self.source.name


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


def cut_jobs(plan: SourcePlan, settings: Settings) -> list[CutJob]:
    """The patches of a source as jobs, in order of place."""
    side = CELL * PatchLayout.of(settings).stored
    cells: dict[tuple[int, int], list[PatchBox]] = {}
    for patch in plan.patches:
        cells.setdefault((patch.y // side, patch.x // side), []).append(patch)
    return [CutJob(plan.scan.source, tuple(patches)) for _, patches in sorted(cells.items())]


def cut(job: CutJob, settings: Settings, classes: Classes) -> list[EncodedPatch]:
    """All patches of a job, in its order; a mask patch without any label, or too few, is none.

    Raises `LeftOut` if the source cannot be read there.
    """
    source, mpp, factor = job.source, settings.prepare.mpp, settings.mask_pixel_px
    least_known = settings.prepare.min_tissue if source.is_map else 0.0
    slide, _ = opened(source, settings)
    images = [patch for patch in job.patches if patch.kind == "image"]
    x, y, *_ = box = _union(images or job.patches)
    picture = slide.read(*box, mpp) if images else None
    left, top, *_ = box = _union(job.patches)
    label_map = classes.read(source, slide, *box, mpp)
    made = []
    for patch in job.patches:
        labels = None if label_map is None else _crop(label_map, patch, left, top)
        if patch.kind == "image" and picture is not None:
            made.append(_encoded(job, patch, labels, _crop(picture, patch, x, y), mpp, classes))
        elif labels is not None and labels.any():
            small = majority(labels, factor, len(classes.labels))
            if np.count_nonzero(small) >= least_known * small.size:
                made.append(_encoded(job, patch, small, None, mpp, classes))
    return made


def _encoded(
    job: CutJob,
    patch: PatchBox,
    labels: LabelMap | None,
    picture: NDArray[np.uint8] | None,
    mpp: float,
    classes: Classes,
) -> EncodedPatch:
    stored = labels if picture is None else picture
    assert stored is not None, "a patch has a picture or labels"
    unknown = [1.0] + [0.0] * (len(classes.labels) - 1)
    meta = {
        "source": job.source.name,
        "x": patch.x,
        "y": patch.y,
        "height": stored.shape[0],
        "width": stored.shape[1],
        "mpp": mpp,
        "split": patch.split,
        "labelled": labels is not None,
        "context": classes.labels.context_id(job.source.context),
        "shares": unknown if labels is None else classes.labels.shares(labels),
    }
    if picture is not None:
        meta["appearance"] = [round(float(value), 5) for value in measure(picture)]
    png, mask = (None if array is None else encode(array) for array in (picture, labels))
    return EncodedPatch(patch.kind, patch.split, meta, png, mask)


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
