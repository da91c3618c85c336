"""How a TIFF holds its picture: which series, which pages of it, and what their samples mean.

The three colours of a picture may be samples of one page or pages of their own (axes YXS, SYX, CYX, ZCYX…),
and its levels may be in SubIFDs or pages. Of several pictures the largest in colour is read, of several focal
planes or moments the first; either is noted.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from diffgen.data.formats.base import ONE_CHANNEL, Header, in_parts, too_large
from diffgen.data.formats.colour import describe
from diffgen.data.formats.pages import segment_of
from diffgen.data.formats.scale import of_tiff, ome_channels

Samples = Literal["rgb", "alpha", "premultiplied", "cmyk", "palette", "pillow"]

MINISWHITE, PALETTE, SEPARATED, YCBCR = 0, 3, 5, 6
LEFT_TO_PILLOW = {8, 9, 10}  # kinds of CIELAB
CODECS_WITH_COLOUR = {7, 34892, 34927, 50001, 50002, 52546, 22610, 34933}
"""JPEG, WebP, JPEG XL...: what they decode of YCbCr is RGB."""
ORIENTATION, UPRIGHT = 274, {0, 1}
TURNED_TAG = "its Orientation tag turns it: save it upright (vips autorot IN OUT.tif)"
OTHERS = {"Z": "focal planes", "T": "moments", "C": "groups of channels"}
KINDS = {"ome": "OME-TIFF", "imagej": "ImageJ TIFF", "qpi": "PerkinElmer QPTIFF"}


@dataclass(frozen=True)
class PlaceOfPage:
    """A page, where its data begin if all pages follow one another, and its number among them."""

    page: Any
    start: int | None


@dataclass(frozen=True)
class Layout:
    """The picture of a TIFF: for each level the pages that hold its samples, red, green and blue."""

    header: Header
    samples: Samples
    levels: tuple[tuple[PlaceOfPage, ...], ...]
    profile: bytes | None
    inverted: bool = False
    """Zero is white."""


@dataclass(frozen=True)
class _Meaning:
    samples: Samples
    order: tuple[int, ...]
    """Numbers of the pages of a level that hold its samples."""
    notes: tuple[str, ...] = ()


def layout(tiff: Any) -> Layout:
    """Of a `TiffFile`. What cannot be read as a picture in colour is the header's problem."""
    every = [series for series in tiff.series if {"Y", "X"} <= set(series.axes)]
    if not every:
        raise ValueError("no picture in it")
    meanings = [_meaning(tiff, series) for series in every]
    number = max(range(len(every)), key=lambda n: (isinstance(meanings[n], _Meaning), _area(every[n]), -n))
    series, meaning = every[number], meanings[number]
    page = series.keyframe
    header = Header(
        format=next((name for kind, name in KINDS.items() if getattr(tiff, f"is_{kind}")), "TIFF"),
        size=(page.imagewidth, page.imagelength),
        mpp=of_tiff(tiff, page, number, len(tiff.series)),
        icc=None,
        channels=_channels(series),
        memory=in_parts((page.imagewidth, page.imagelength)),
    )
    if page.tags.valueof(ORIENTATION, 1) not in UPRIGHT:
        meaning = TURNED_TAG
    if isinstance(meaning, str):
        return Layout(replace(header, problem=meaning), "rgb", (), None)
    profile = page.tags.valueof(34675)
    several = sum(
        isinstance(other, _Meaning) and 2 * _area(every[n]) >= _area(series)
        for n, other in enumerate(meanings)
    )
    notes = (f"of {several} pictures in it the {number + 1}. is read",) if several > 1 else ()
    rows, columns = segment_of(page)
    raw = page.is_memmappable
    memory = in_parts(header.size, 0 if raw else rows * columns * page.samplesperpixel * len(meaning.order))
    header = replace(
        header,
        icc=describe(profile) if profile else None,
        channels=3,
        memory=memory,
        notes=(*notes, *meaning.notes),
        problem=too_large(memory),
    )
    levels = tuple(
        tuple(_place(level, n) for n in meaning.order)
        for level in series.levels
        if level.keyframe.samplesperpixel == page.samplesperpixel
        and (level.dataoffset is not None or len(level.pages) > max(meaning.order))
    )
    return Layout(
        header,
        meaning.samples,
        levels,
        profile,
        inverted=page.photometric == MINISWHITE,
    )


def _product(lengths: Iterable[int]) -> int:
    return math.prod(lengths)


def _area(series: Any) -> int:
    return int(series.keyframe.imagewidth * series.keyframe.imagelength)


def _place(level: Any, number: int) -> PlaceOfPage:
    page, start = level.keyframe, level.dataoffset
    if start is not None and page.is_memmappable:
        return PlaceOfPage(page, start + number * page.nbytes)
    own = level.pages[number]
    if own is None:
        raise ValueError("a part of it is in another file, which is not there")
    return PlaceOfPage(own, own.dataoffsets[0] if page.is_memmappable else None)


def _leading(series: Any) -> dict[str, int]:
    """Axis → length of what a series has beside its pages' own axes; in order."""
    own = len(series.keyframe.axes)
    return dict(zip(series.axes[:-own], series.shape[:-own], strict=True))


def _channels(series: Any) -> int:
    leading = _leading(series)
    return int(series.keyframe.samplesperpixel) * leading.get("C", leading.get("S", 1))


def _meaning(tiff: Any, series: Any) -> _Meaning | str:
    """What the samples of a series are, or why it is no picture in colour."""
    page, leading = series.keyframe, _leading(series)
    samples, colour = page.samplesperpixel, page.photometric
    if page.imagedepth > 1:
        return "a volume in one page: no picture of a section"
    if samples == 1 and colour != PALETTE:
        axis = next((name for name in "CS" if leading.get(name, 1) > 1), "")
        number = leading.get(axis, 1)
        if number == 1:
            pages = _product(leading.values())
            return ONE_CHANNEL if pages == 1 else f"{ONE_CHANNEL} ({pages} pages, not said to be colours)"
        if number != 3:
            return f"{number} channels: no picture of H&E, which has three"
        names = ome_channels(tiff.ome_metadata) if tiff.is_ome else ()
        if any(dye for _, dye in names):
            return f"its channels are dyes ({', '.join(name for name, _ in names)}): no picture of H&E"
        order = _colours(tuple(name for name, _ in names[:3]))
        step = _product(list(leading.values())[list(leading).index(axis) + 1 :])
        return _checked(page, "rgb", tuple(n * step for n in order), _unread(leading, axis))
    if samples == 2:
        return ONE_CHANNEL
    if samples > 4:
        return f"{samples} channels: no picture of H&E, which has three"
    kind: Samples = "rgb"
    if colour == PALETTE:
        kind = "palette"
    elif colour == SEPARATED:
        if samples != 4:
            return f"{samples} inks rather than the four of CMYK: save it as RGB"
        kind = "cmyk"
    elif colour in LEFT_TO_PILLOW or (colour == YCBCR and page.compression not in CODECS_WITH_COLOUR):
        kind = "pillow"
    elif samples == 4:
        # a dictionary of literals is one of strings to the type checker
        kind = {1: "premultiplied", 2: "alpha"}.get(int((*page.extrasamples, 0)[0]), "rgb")  # type: ignore[assignment]
    return _checked(page, kind, (0,), _unread(leading, None))


def _checked(page: Any, kind: Samples, order: tuple[int, ...], notes: tuple[str, ...]) -> _Meaning | str:
    if kind != "pillow" and page.dtype != np.uint8:
        return (
            f"pixels are {page.dtype}, and nothing says how bright white is: "
            "save it with 8 bits a channel (vips cast IN OUT.tif uchar --shift)"
        )
    return _Meaning(kind, order, notes)


def _unread(leading: dict[str, int], colours: str | None) -> tuple[str, ...]:
    return tuple(
        f"of {length} {OTHERS.get(axis, 'pages')} the first is read"
        for axis, length in leading.items()
        if axis != colours and length > 1
    )


def _colours(names: tuple[str, ...]) -> tuple[int, ...]:
    """Where red, green and blue are, if the channels' names say it; else as they come."""
    found = [name.strip().lower()[:1] for name in names]
    return tuple(found.index(letter) for letter in "rgb") if sorted(found) == ["b", "g", "r"] else (0, 1, 2)
