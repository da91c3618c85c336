"""COCO's run-length codes → areas: runs of pixels down the columns, of background first, as numbers or text.

The text is pycocotools' (cocoapi's maskApi.c, `rleFrString`): six bits a letter from "0" on, five of them a
digit and one for more; from the fourth number on the difference to the last but one.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from diffgen.data.annotations.shapes import united

FIRST = 48  # "0"
MORE, SIGN = 0x20, 0x10


def area(code: Mapping[str, Any]) -> BaseGeometry:
    """The area of `{"size": [height, width], "counts": …}` in pixels, exactly; empty where nothing is set.

    Raises `KeyError`, `TypeError` or `ValueError` where it is malformed.
    """
    height, width = (int(side) for side in code["size"])
    said = code["counts"]
    runs = list(_numbers(said)) if isinstance(said, str | bytes) else [int(run) for run in said]
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"its run lengths are not those of {width}x{height} pixels")
    return united(_boxes(runs, height))


def _numbers(text: str | bytes) -> Iterator[int]:
    before: list[int] = []
    value, shift = 0, 0
    for letter in text.encode("ascii") if isinstance(text, str) else text:
        digit = letter - FIRST
        if not 0 <= digit < 64:
            raise ValueError(f"its run lengths hold the letter {chr(letter)!r}")
        value |= (digit & 0x1F) << shift
        shift += 5
        if digit & MORE:
            continue
        if digit & SIGN:
            value -= 1 << shift
        before.append(value + (before[-2] if len(before) > 2 else 0))
        yield before[-1]
        value, shift = 0, 0
    if shift:
        raise ValueError("its run lengths end within a number")


def _boxes(runs: Sequence[int], height: int) -> Iterator[BaseGeometry]:
    """Each run of an object as at most three rectangles: of its first column, of whole ones, of its last."""
    end = 0
    for number, run in enumerate(runs):
        start, end = end, end + run
        if number % 2 == 0 or not run:
            continue
        (left, top), (right, bottom) = divmod(start, height), divmod(end, height)
        if left == right:
            yield shapely.box(left, top, left + 1, bottom)
            continue
        if top:
            yield shapely.box(left, top, left + 1, height)
            left += 1
        if right > left:
            yield shapely.box(left, 0, right, height)
        if bottom:
            yield shapely.box(right, 0, right + 1, bottom)
