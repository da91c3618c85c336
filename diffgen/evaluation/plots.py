"""Figures of the report: from numbers to SVG, in one style.

Invariants: same numbers, same bytes, with nothing of the moment in them; no series is told from another by
its colour alone; and a figure has no background of its own, and ink that turns light where the page is dark.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

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
BINS = 40
TURNS = 8
RASTER_FROM = 2000  # points; more would make the file megabytes long

Values = Sequence[float] | NDArray[Any]


@dataclass(frozen=True)
class Band:
    """A curve and the interval around it, all of one length."""

    values: Values
    low: Values
    high: Values


def bars(names: Sequence[str], series: Mapping[str, Values], label: str, log: bool = False) -> bytes:
    """Horizontal bars, a group a name and a bar a series; `label` is that of the values' axis (Fig. 8).

    On a logarithmic axis a value of zero has no bar: it is written beside the name.
    """
    with style.context(STYLE):
        thick = 0.78 / max(1, len(series))
        figure, axes = new_axes(0.75 + len(names) * max(0.3, 0.15 * len(series) + 0.12))
        places = np.arange(len(names))
        positive = [v for values in series.values() for v in np.asarray(values, float) if v > 0]
        if log:
            axes.set_xscale("log")
            axes.set_xlim(min(positive, default=0.1) / 2, max(positive, default=1.0) * 1.5)
            _log_ticks(axes.xaxis)
        for i, (name, values) in enumerate(series.items()):
            y = places + (i - (len(series) - 1) / 2) * thick
            look = {"color": colour(name, i), "hatch": HATCHES[i % len(HATCHES)], "linewidth": 0}
            axes.barh(y, values, thick * 0.92, label=name, **look)
            for place in y[np.asarray(values, float) == 0] if log else ():
                axes.annotate("0", (0, place), (3, 0), ("axes fraction", "data"), "offset points",
                              va="center", fontsize=7.5, color=FAINT)  # fmt: skip
        axes.set_yticks(places, ["\n".join(wrap(_cut(name, 44), 24)) for name in names])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(len(names) - 0.45, -0.55)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(label)
        return to_svg(figure, axes, legend=len(series) > 1)


def lines(
    x: Values,
    series: Mapping[str, Values | Band],
    xlabel: str,
    ylabel: str,
    logx: bool = False,
    logy: bool = False,
) -> bytes:
    """Curves over one x, with their bands where there are any (Fig. 3; correlation by distance)."""
    with style.context(STYLE):
        figure, axes = new_axes(3.1)
        for i, (name, given) in enumerate(series.items()):
            band = given if isinstance(given, Band) else None
            values = given.values if isinstance(given, Band) else given
            # A mark at each of many points would be a thicker line.
            look = {"linestyle": DASHES[i % len(DASHES)], "markevery": max(1, len(x) // 12)}
            axes.plot(x, values, label=name, color=colour(name, i), marker=MARKERS[i % len(MARKERS)], **look)
            if band:
                axes.fill_between(x, band.low, band.high, color=colour(name, i), alpha=0.18, linewidth=0)
        if logx:
            axes.set_xscale("log")
            _log_ticks(axes.xaxis, x if len(x) <= 6 else None)
        if logy:
            axes.set_yscale("log")
            _log_ticks(axes.yaxis)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        return to_svg(figure, axes, legend=len(series) > 1)


def histograms(series: Mapping[str, Values], xlabel: str) -> bytes:
    """Distributions over the same bins; each one's bins sum to one, whatever the number of its samples."""
    with style.context(STYLE):
        figure, axes = new_axes(2.9)
        pooled = np.concatenate([np.asarray(values, float) for values in series.values()])
        edges = np.histogram_bin_edges(pooled, BINS)
        for i, (name, values) in enumerate(series.items()):
            share = np.histogram(values, edges)[0] / max(1, len(values))
            look = {"color": colour(name, i), "linestyle": DASHES[i % len(DASHES)]}
            axes.stairs(share, edges, fill=True, alpha=0.16, color=colour(name, i))
            axes.stairs(share, edges, label=name, linewidth=1.7, **look)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(xlabel)
        axes.set_ylabel("share of samples")
        return to_svg(figure, axes, legend=len(series) > 1)


def scatter2d(
    sets: Mapping[str, NDArray[Any]],
    xlabel: str = "first principal component",
    ylabel: str = "second principal component",
) -> bytes:
    """Sets of points (N, 2) on axes of one scale. The sets take turns, so that none lies on top."""
    with style.context(STYLE):
        figure, axes = new_axes(3.6)
        number = sum(len(points) for points in sets.values())
        size, alpha = (14, 0.7) if number < 500 else (5, 0.45)
        looks: dict[str, dict[str, Any]] = {
            name: {"color": colour(name, i), "marker": MARKERS[i % len(MARKERS)]}
            for i, name in enumerate(sets)
        }
        for turn in range(TURNS):
            for name, points in sets.items():
                axes.scatter(
                    *np.asarray(points, float)[turn::TURNS].T,
                    s=size,
                    alpha=alpha,
                    linewidths=0,
                    rasterized=number > RASTER_FROM,
                    **looks[name],
                )
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        handles = [Line2D([], [], linestyle="", label=name, **look) for name, look in looks.items()]
        return to_svg(figure, axes, legend=len(sets) > 1, handles=handles)


def _cut(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _log_ticks(axis: Any, places: Values | None = None) -> None:
    """At powers of ten, at 2 and 5 between them too where there are few, or at given places."""
    low, high = axis.get_view_interval()
    steps = (1,) if high / low > 200 else (1, 2, 5)
    axis.set_major_locator(
        LogLocator(subs=steps, numticks=12) if places is None else FixedLocator(list(places))
    )
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))


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
