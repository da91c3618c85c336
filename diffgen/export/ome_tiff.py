"""Pyramidal OME-TIFF: an image and its label map, as QuPath (Bio-Formats), OpenSlide and tifffile open them.

Tiles of 512², deflate unless JPEG is asked for, µm per pixel in the OME header and in the TIFF's own
resolution. The smaller levels are SubIFDs of the first page, as OME-TIFF has them since 6.0. Bytes of an
image go through memory a row of tiles at a time.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from diffgen.errors import UserError
from diffgen.export.pyramid import Pixels, half_label_map, half_picture, levels
from diffgen.export.shard_set import Kind, WholeImage

SIDE = 512  # of a tile
BUFFER = 2**24  # bytes of tiles that are compressed at once
CLASSIC = 2**31  # bytes of pixels up to which no BigTIFF is needed, whatever compression does


def num_levels(height: int, width: int, side: int = SIDE) -> int:
    """Levels of a pyramid whose coarsest fits one tile."""
    count = 1
    while max(height, width) > side:
        height, width, count = -(-height // 2), -(-width // 2), count + 1
    return count


def write_ome_tiff(image: WholeImage, kind: Kind, path: Path, jpeg: int | None, scratch: Path) -> None:
    """Write the picture or the label map of an image; `jpeg`: quality of the picture's tiles.

    Raises `UserError` where JPEG is asked for and there is no encoder.
    """
    height, width, is_picture = image.height, image.width, kind == "png"
    count = num_levels(height, width)
    shape: tuple[int, ...] = (3,) if is_picture else ()
    how: dict[str, Any] = {
        "dtype": "uint8",
        "tile": (SIDE, SIDE),
        "photometric": "rgb" if is_picture else "minisblack",
        "compression": "jpeg" if jpeg and is_picture else "zlib",
        "compressionargs": {"level": jpeg} if jpeg and is_picture else {"level": 6},
        "buffersize": BUFFER,
    }
    mpp = image.shards.mpp
    metadata = {
        "axes": "YXS" if is_picture else "YX",
        "Name": image.name,
        # Of its content, so that a file repeats byte for byte.
        "UUID": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{kind} {image.name} {image.shards.run}')}",
    }
    described = [f"{name}: {value}" for name, value in image.place.items()]
    if not is_picture:
        names = enumerate(image.shards.labels.classes)
        described.append("class ids: " + ", ".join(f"{i} {name}" for i, name in names))
    if described:
        metadata["Description"] = "; ".join(described)
    if mpp:
        unit = {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
        metadata |= {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp, **unit}  # type: ignore[dict-item]  # numbers
    whole = height * width * (3 if is_picture else 1)
    halve = half_picture if is_picture else half_label_map
    try:
        with tifffile.TiffWriter(path, ome=True, bigtiff=whole * 4 // 3 > CLASSIC) as tif:
            for number, level in enumerate(levels(height, width, image.bands(kind), halve, count, scratch)):
                said: dict[str, Any] = {"metadata": metadata, "subifds": count - 1} if number == 0 else {}
                if mpp:
                    per_cm = 1e4 / mpp / (width / level.width), 1e4 / mpp / (height / level.height)
                    said |= {"resolution": per_cm, "resolutionunit": "CENTIMETER"}
                tif.write(
                    _tiles(level.cut(_spans(level.height))),
                    shape=(level.height, level.width, *shape),
                    subfiletype=1 if number else 0,
                    **{"metadata": None, **said},
                    **how,
                )
    except KeyError as error:
        raise _without_encoder(error) from error
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        raise _without_encoder(error) from error


def _without_encoder(error: Exception) -> UserError:
    return UserError(f"--jpeg: OME-TIFF in JPEG needs imagecodecs (pip install imagecodecs): {error}")


def _spans(height: int) -> list[tuple[int, int]]:
    return [(top, min(height, top + SIDE)) for top in range(0, height, SIDE)]


def _tiles(bands: Iterator[Pixels]) -> Iterator[Pixels]:
    for band in bands:
        for left in range(0, band.shape[1], SIDE):
            yield np.ascontiguousarray(band[:, left : left + SIDE])
