"""Pictures and their masks as small files for the report. Scores are never taken from these."""

import io
from typing import Any

from PIL import Image

from diffgen.labels import UNKNOWN, LabelMap, Labels, Picture

TILE = 384  # pixels: sharp at the size of a tile, and still more to see when it is opened
JPEG_QUALITY = 90


def picture(image: Picture, longest: int = TILE) -> bytes:
    """RGB (H, W, 3) → JPEG, no side longer than `longest` px."""
    return _encode(Image.fromarray(image), longest, Image.Resampling.LANCZOS, "JPEG",
                   quality=JPEG_QUALITY, subsampling=0)  # fmt: skip


def overlay(label_map: LabelMap, labels: Labels, longest: int = TILE) -> bytes:
    """Label map (H, W) → PNG in the classes' colours, to lie over its picture; unknown is clear."""
    painted = Image.fromarray(label_map).convert("P")
    painted.putpalette([channel for rgb in labels.colours for channel in rgb])
    return _encode(painted, longest, Image.Resampling.NEAREST, "PNG", transparency=UNKNOWN, optimize=True)


def _encode(image: Image.Image, longest: int, resampling: Image.Resampling, kind: str, **how: Any) -> bytes:
    scale = min(1.0, longest / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    sink = io.BytesIO()
    (image if size == image.size else image.resize(size, resampling)).save(sink, kind, **how)
    return sink.getvalue()
