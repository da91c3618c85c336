"""The one style of the report's figures, and how one becomes SVG.

Invariants: a figure has no background of its own, and its ink turns light where the page is dark, so it is at
home in both; nothing of the moment is in its bytes.
"""

import io
import warnings
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

PALETTE = {"real": "#4a78c4", "synthetic": "#d9702a", "real against real": "#85858f"}
"""Blue and orange are told apart with any colour vision; all stand out from white and from black."""
OTHERS = ("#b0569a", "#159a76", "#8f7a10", "#3aa0c9", "#c04a4a")
"""Series of other names, in their order."""
DASHES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)))
MARKERS = "os^Dv<>"
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "++++", "oooo")

INK, FAINT, GRID = "#2a2733", "#6b6776", "#e3e0e9"
DARK = {INK: "#e8e5ee", FAINT: "#a8a3b5", GRID: "#3a3745"}
LETTERS = 'system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif'
WIDTH = 4.2  # inches: text of 9 points can be read where half a page, or a telephone, is all there is

STYLE = Path(__file__).parent / "templates" / "plots.mplstyle"


def colour(name: str, position: int) -> str:
    """That of a series: fixed for the names of `PALETTE`, by its place for any other."""
    return PALETTE.get(name, OTHERS[position % len(OTHERS)])


def new_axes(height: float, width: float = WIDTH) -> tuple[Any, Any]:
    """A figure with its one pair of axes; sides in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def to_svg(figure: Any, axes: Any, legend: bool, handles: Any = None) -> bytes:
    """With the series named above it, and nothing of the moment or of the machine in it."""
    if legend:
        if handles is None:
            handles = axes.get_legend_handles_labels()[0]
        longest = max(len(handle.get_label()) for handle in handles)
        figure.legend(handles=handles, loc="outside upper left", ncols=max(1, 54 // (longest + 7)))
    sink = io.BytesIO()
    with warnings.catch_warnings():
        # What DejaVu lacks, the letters of the reader's machine have.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(sink, format="svg", transparent=True, metadata=nothing)
    text = sink.getvalue().decode()
    text = text[text.index("<svg") :]  # its DOCTYPE is an address
    head = text.index(">") + 1
    return f"{text[:head]}\n <style>{_dark()}</style>{text[head:]}".encode()


def _dark() -> str:
    """CSS that turns the ink light by what elements say of themselves: without CSS they show as they are."""
    rules = "".join(
        f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
        for light, dark in DARK.items()
        for what in ("fill", "stroke")
    )
    return f"text{{font-family:{LETTERS}!important}}@media screen and (prefers-color-scheme:dark){{{rules}}}"
