"""What the sections have in common: figures as cells of tables, curves, regions as tiles of galleries."""

import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffgen.evaluation import plots
from diffgen.evaluation.bootstrap import Estimate, MeanStd
from diffgen.evaluation.images import RegionSet
from diffgen.evaluation.page import Gallery, Interval, Level, Tile
from diffgen.labels import UNKNOWN, LabelMap, Labels, Picture

Rows = NDArray[np.intp]
Span = tuple[float, float] | None
SHARE: Span = (0.0, 1.0)
TILE = 384  # pixels: sharp at the size of a tile, and still more to see when it is opened
JPEG_QUALITY = 90
RowSpec = tuple[str, Callable[[Any], Any], int, Span, float, str]
"""A row of a table: name, figure of a set's results, digits, span of its bar, factor, remark."""


def rows_of(specs: Iterable[RowSpec], *results: Any) -> list[list[str | Interval]]:
    """Rows of a table with a column for each of the results; a remark, if any, is its last cell."""
    return [
        [name, *(cell(figure(one), digits, span, times) for one in results), *([remark] if remark else [])]
        for name, figure, digits, span, times, remark in specs
    ]


def cell(
    of: Estimate | MeanStd | float | None, digits: int = 2, span: Span = SHARE, times: float = 1.0
) -> str | Interval:
    """A figure as a cell; without a `span` it has no bar."""
    where = span or (0.0, 0.0)
    match of:
        case None:
            return "–"
        case Estimate():
            return Interval(of.value * times, of.low * times, of.high * times, digits, where)
        case MeanStd():
            return f"{of.mean * times:.{digits}f} ± {of.deviation * times:.{digits}f}"
    return Interval(float(of) * times, digits=digits, span=where)


def text(of: Estimate, digits: int = 2) -> str:
    """A figure and its interval, as verdicts and captions say it."""
    low, value, high = (f"{x:.{digits}f}".replace("-", "−") for x in (of.low, of.value, of.high))
    return f"{value} [{low}, {high}]"


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def graded(good: bool, fair: bool) -> Level:
    return "good" if good else "fair" if fair else "poor"


def level_of(parts: Iterable[Estimate], good: float, fair: float) -> Level:
    """The level of figures that are better the larger they are, from their intervals.

    Good where all lie from `good` on, poor where one lies below `fair`, fair where all lie from there on and
    one below `good`; else the intervals reach into another level, and which it is is not known.
    """
    parts = list(parts)
    lows, highs = [one.low for one in parts], [one.high for one in parts]
    if min(highs) < fair:
        return "poor"
    if min(lows) >= good:
        return "good"
    return "fair" if min(lows) >= fair and min(highs) < good else "unknown"


def level_of_errors(found: Iterable[tuple[Estimate, tuple[float, float]]]) -> Level:
    """The level of errors, each with the limits up to which it is good, and fair: as `level_of`."""
    ends = [(one.low / fair, one.high / fair, good / fair) for one, (good, fair) in found]
    if any(low > 1 for low, _, _ in ends):
        return "poor"
    if all(high <= good for _, high, good in ends):
        return "good"
    known = all(high <= 1 for _, high, _ in ends) and any(low > good for low, _, good in ends)
    return "fair" if known else "unknown"


def band(of: Iterable[Estimate | MeanStd]) -> plots.Band:
    """A curve of figures with their intervals, or deviations."""
    ends = [
        (one.value, one.low, one.high) if isinstance(one, Estimate) else
        (one.mean, one.mean - one.deviation, one.mean + one.deviation)
        for one in of
    ]  # fmt: skip
    return plots.Band(*zip(*ends, strict=True))


def tile(
    crops: RegionSet, number: int, labels: Labels | None, caption: str, partner: Tile | None = None
) -> Tile:
    """A region, with its label map to lay over it if it has one."""
    pixels, label_map = crops.images.read(crops.regions[number])
    over = None if label_map is None or labels is None else overlay(label_map, labels)
    return Tile(picture(pixels), over, caption, partner)


def pairs(crops: RegionSet, rows: Rows, of: RegionSet, partners: Rows, captions: Sequence[str]) -> list[Tile]:
    """Regions, each beside its partner among those `of` another set."""
    return [
        tile(crops, row, None, f"{crops.regions[row].image} · {words}",
             tile(of, partner, None, of.regions[partner].source))
        for row, partner, words in zip(rows.tolist(), partners.tolist(), captions, strict=True)
    ]  # fmt: skip


def not_chosen(
    title: str, crops: RegionSet, number: int, labels: Labels | None, large: bool = False
) -> Gallery:
    """At most `number` regions, drawn evenly over sources: no one chose them."""
    where = {region: position for position, region in enumerate(crops.regions)}
    shown = [tile(crops, where[region], labels, region.image) for region in crops.drawn(number).regions]
    return Gallery(title, shown, legend=legend(labels), large=large)


def legend(labels: Labels | None) -> list[tuple[str, tuple[int, int, int]]]:
    """Names and colours of the known classes."""
    return [] if labels is None else list(zip(labels.classes, labels.colours, strict=True))[1:]


def picture(image: Picture, longest: int = TILE) -> bytes:
    """RGB (H, W, 3) → JPEG, no side longer than `longest` px. Scores are never taken from these."""
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
