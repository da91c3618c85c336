"""`report.html`: what it says as plain data, and that data as one file of HTML that opens offline.

Invariants: same page, same bytes; the file loads nothing, and forbids itself to (its Content-Security-Policy
admits embedded pictures, and its own style and script by their hashes); any text shows as it was given,
whatever is in it.
"""

import base64
import hashlib
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from diffgen.storage import write_text

Level = Literal["good", "fair", "poor", "unknown"]
Colour = tuple[int, int, int]
WORDS: dict[Level, str] = {"good": "Good", "fair": "Fair", "poor": "Poor", "unknown": "Not known"}
TEMPLATES = Path(__file__).parent / "templates"
MASK_OPACITY = 25  # %: what is looked at is the tissue


@dataclass(frozen=True)
class Verdict:
    """What a section comes to: a word, the number it stands on, and a sentence."""

    level: Level
    number: str
    text: str


@dataclass(frozen=True)
class Interval:
    """A number with its interval, and a thin bar of both if they lie in `span`. NaN shows as a dash."""

    value: float
    low: float = math.nan
    high: float = math.nan
    digits: int = 2
    span: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Table:
    """A row's first cell names it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Interval]]
    note: str = ""

    def of_numbers(self, column: int) -> bool:
        """Whether a column is set as numbers are: as its first cell is that is not a dash."""
        cells = (row[column] for row in self.rows)
        return next((numeric(cell) for cell in cells if cell not in ("", "–")), True)


@dataclass(frozen=True)
class Plot:
    """SVG, PNG or JPEG."""

    title: str
    image: bytes
    caption: str = ""


@dataclass(frozen=True)
class Tile:
    """A picture (PNG or JPEG), its mask to lay over it (PNG, clear where nothing is), and one beside it."""

    image: bytes
    overlay: bytes | None = None
    caption: str = ""
    partner: "Tile | None" = None


@dataclass(frozen=True)
class Gallery:
    """Tiles that open; with a slider and a toggle if one has a mask, whose classes `legend` names."""

    title: str
    tiles: Sequence[Tile]
    caption: str = ""
    legend: Sequence[tuple[str, Colour]] = ()
    large: bool = False
    """Few pictures in which the details count, side by side."""

    @property
    def masks(self) -> bool:
        return any(one.overlay for tile in self.tiles for one in (tile, tile.partner) if one)

    @property
    def paired(self) -> bool:
        return any(tile.partner for tile in self.tiles)


@dataclass(frozen=True)
class Note:
    """A paragraph; a warning stands out."""

    text: str
    warning: bool = False


Block = Table | Plot | Gallery | Note


@dataclass(frozen=True)
class Section:
    """A section. `id` is its anchor; `blind` says what its numbers do not detect; `command` makes them.

    `plain` is its verdict in words without figures, for the first page.
    """

    id: str
    title: str
    verdict: Verdict | None
    blocks: Sequence[Block] = ()
    blind: Sequence[str] = ()
    command: str = ""
    plain: str = ""


@dataclass(frozen=True)
class Page:
    """The report; `pictures` stand on its first page."""

    title: str
    subtitle: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    footnotes: Sequence[str] = ()
    pictures: Sequence[Gallery] = ()


def write(page: Page, path: Path) -> None:
    """The page as a file, which is there whole or not at all."""
    write_text(path, render(page))


def render(page: Page) -> str:
    """The page as HTML. `ValueError` for an anchor given twice or that is no word, and for no picture."""
    anchors = [section.id for section in page.sections]
    if len(set(anchors)) < len(anchors) or not all(re.fullmatch(r"[a-z][a-z0-9-]*", a) for a in anchors):
        raise ValueError(f"anchors of the page: {anchors}")
    style, script = ((TEMPLATES / f"report.{kind}").read_text("utf-8") for kind in ("css", "js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    template = _environment().get_template("report.html.j2")
    return template.render(page=page, style=Markup(style), script=Markup(script), policy=policy)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {"words": WORDS, "opacity": MASK_OPACITY}
    environment.filters |= {"picture": picture, "number": number, "bar": bar, "hex": hexadecimal}
    environment.tests |= {
        "interval": lambda cell: isinstance(cell, Interval),
        "table": lambda block: isinstance(block, Table),
        "plot": lambda block: isinstance(block, Plot),
        "gallery": lambda block: isinstance(block, Gallery),
        "measured": lambda value: math.isfinite(value),
    }
    return environment


def _hash(text: str) -> str:
    """What a Content-Security-Policy knows an inline element by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def picture(image: bytes) -> Markup:
    """`src`, `width` and `height` of an <img>: the page has its length before the pictures are decoded."""
    if image.startswith(b"\x89PNG"):
        kind, size = "png", Image.open(io.BytesIO(image)).size
    elif image.startswith(b"\xff\xd8\xff"):
        kind, size = "jpeg", Image.open(io.BytesIO(image)).size
    elif image.lstrip().startswith((b"<svg", b"<?xml")) and (box := _VIEW_BOX.search(image)):
        kind, size = "svg+xml", (round(float(box[1]) * 4 / 3), round(float(box[2]) * 4 / 3))
    else:
        raise ValueError(f"bytes of no picture that a page shows: {image[:16]!r}")
    data = base64.b64encode(image).decode()
    return Markup(f'src="data:image/{kind};base64,{data}" width="{size[0]}" height="{size[1]}"')


_VIEW_BOX = re.compile(rb'<svg\b[^>]*\bviewBox="[\d.]+ [\d.]+ ([\d.]+) ([\d.]+)"')


def number(value: float, digits: int = 2) -> str:
    """With a true minus, and a dash for what could not be measured."""
    return f"{value:,.{digits}f}".replace("-", "−") if math.isfinite(value) else "–"


def numeric(cell: str | Interval) -> bool:
    """Whether a cell begins as a number does."""
    return isinstance(cell, Interval) or re.match(r"[−-]?[\d.]", cell) is not None


def bar(cell: Interval) -> tuple[float, float, float] | None:
    """Where low, value and high lie in the span, in %; None where there is no bar to draw."""
    start, end = cell.span
    if not all(start <= x <= end for x in (cell.low, cell.value, cell.high)) or start == end:
        return None
    low, value, high = (
        round(100 * (x - start) / (end - start), 2) for x in (cell.low, cell.value, cell.high)
    )
    return low, value, high


def hexadecimal(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
