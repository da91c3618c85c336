"""What the sections have in common: figures as cells of tables, regions as tiles of galleries."""

from diffgen.evaluation import tiles
from diffgen.evaluation.bootstrap import Estimate, MeanStd
from diffgen.evaluation.images import RegionSet
from diffgen.evaluation.page import Interval, Tile
from diffgen.labels import Labels

NOWHERE = (0.0, 0.0)  # a span in which no bar is drawn


def cell(
    of: Estimate | MeanStd | float | None, digits: int = 2, span: tuple[float, float] | None = (0.0, 1.0),
    times: float = 1.0,
) -> str | Interval:  # fmt: skip
    """A figure as a cell; without a `span` it has no bar."""
    where = NOWHERE if span is None else span
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


def tile(
    crops: RegionSet, number: int, labels: Labels | None, caption: str, partner: Tile | None = None
) -> Tile:
    """A region, with its label map to lay over it if it has one."""
    region = crops.regions[number]
    picture, label_map = crops.images.read(region)
    overlay = None if label_map is None or labels is None else tiles.overlay(label_map, labels)
    return Tile(tiles.picture(picture), overlay, caption, partner)


def legend(labels: Labels | None) -> list[tuple[str, tuple[int, int, int]]]:
    """Names and colours of the known classes."""
    return [] if labels is None else list(zip(labels.classes, labels.colours, strict=True))[1:]


def some(crops: RegionSet, number: int, seed: int = 0) -> list[int]:
    """Positions of at most `number` regions, drawn evenly over sources: no one chose them."""
    where = {region: position for position, region in enumerate(crops.regions)}
    return [where[region] for region in crops.drawn(number, seed).regions]


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"
