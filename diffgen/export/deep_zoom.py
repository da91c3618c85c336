"""Deep Zoom (DZI): the tiles that OpenSeadragon and other viewers on the web ask for.

`NAME.dzi` and `NAME_files/LEVEL/COLUMN_ROW.png` as Microsoft's format has them: level 0 is one pixel, each
next level twice as large. Label maps are painted in the colours of their classes, always as PNG.
"""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from diffgen.export.ome_tiff import num_levels
from diffgen.export.pyramid import half_label_map, half_picture, levels
from diffgen.export.shard_set import Kind, WholeImage

SIDE, OVERLAP = 254, 1
NAMESPACE = "http://schemas.microsoft.com/deepzoom/2008"


def write_tiles(image: WholeImage, kind: Kind, folder: Path, jpeg: int | None, scratch: Path) -> None:
    """Write `folder/LEVEL/COLUMN_ROW.png`, or `.jpeg` of that quality."""
    count = num_levels(image.height, image.width, 1)
    halve = half_picture if kind == "png" else half_label_map
    labels, suffix = image.shards.labels, suffix_of(kind, jpeg)
    said = {"quality": jpeg} if suffix == "jpeg" else {"compress_level": 4}
    for number, level in enumerate(
        levels(image.height, image.width, image.bands(kind), halve, count, scratch)
    ):
        at = folder / str(count - 1 - number)
        at.mkdir(parents=True)
        rows = _spans(level.height)
        for row, band in enumerate(level.cut(rows)):
            for column, (left, right) in enumerate(_spans(level.width)):
                pixels = band[:, left:right] if kind == "png" else labels.paint(band[:, left:right])
                tile = Image.fromarray(np.ascontiguousarray(pixels))
                tile.save(at / f"{column}_{row}.{suffix}", **said)


def suffix_of(kind: Kind, jpeg: int | None) -> str:
    return "jpeg" if jpeg and kind == "png" else "png"


def descriptor(height: int, width: int, suffix: str) -> bytes:
    """What `NAME.dzi` says."""
    size = {"Height": str(height), "Width": str(width)}
    how = {"Format": suffix, "Overlap": str(OVERLAP), "TileSize": str(SIDE), "xmlns": NAMESPACE}
    root = ElementTree.Element("Image", how)
    ElementTree.SubElement(root, "Size", size)
    return ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True) + b"\n"


def _spans(length: int) -> list[tuple[int, int]]:
    """Tiles along an axis, with the pixels they share with their neighbours."""
    return [
        (max(0, start - OVERLAP), min(length, start + SIDE + OVERLAP)) for start in range(0, length, SIDE)
    ]
