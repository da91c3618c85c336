"""One picture to look at before training: the slides with their tissue and split, patches, and labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch as Swatch
from matplotlib.patches import Rectangle as Frame

from diffgen.data.patches import Rectangle, Split
from diffgen.data.tissue import Mask
from diffgen.labels import LabelMap, Labels, Picture

COLUMNS = 4
"""Pairs (picture, labels) in a row."""
TRAIN, TEST = "#1f6fd6", "#e07b00"


@dataclass(frozen=True)
class Overview:
    """A source as a whole: its picture, its tissue, and the parts of the split in `size` (width, height)."""

    name: str
    picture: Picture
    tissue: Mask
    size: tuple[int, int]
    parts: Mapping[Split, Rectangle]


@dataclass(frozen=True)
class Pair:
    """A patch with its label map (None where unlabelled), both of one size."""

    title: str
    picture: Picture
    label_map: LabelMap | None


def draw(
    file: IO[bytes],
    labels: Labels,
    overviews: Sequence[Overview],
    images: Sequence[Pair],
    masks: Sequence[Pair],
) -> None:
    """Write the sheet as PNG."""
    blocks = [
        ("Image patches, and with their labels", images),
        ("Mask patches: source and label map", masks),
    ]
    blocks = [(title, pairs) for title, pairs in blocks if pairs]
    heights = [1.95 * -(-len(pairs) // COLUMNS) + 0.35 for _, pairs in blocks]
    if overviews:
        tallest = max(item.size[1] / item.size[0] for item in overviews)
        heights.insert(0, min(4.5, max(1.5, 14.0 / len(overviews) * tallest)))
    figure = Figure(figsize=(14, sum(heights) + 1.1), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    parts = list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    if overviews:
        part = parts.pop(0)
        part.suptitle("Sources: tissue outlined, training and test parts", fontsize=11, x=0.01, ha="left")
        for axes, item in zip(part.subplots(1, len(overviews), squeeze=False)[0], overviews, strict=True):
            _draw_overview(axes, item)
    for part, (title, pairs) in zip(parts, blocks, strict=True):
        part.suptitle(title, fontsize=11, x=0.01, ha="left")
        grid = part.subplots(-(-len(pairs) // COLUMNS), 2 * COLUMNS, squeeze=False).reshape(-1, 2)
        for axes, pair in zip(grid, [*pairs, *[None] * (len(grid) - len(pairs))], strict=True):
            _draw_pair(axes[0], axes[1], pair, labels)
    _legend(figure, labels)
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})


def _draw_overview(axes: Axes, item: Overview) -> None:
    width, height = item.size
    extent = (0, width, height, 0)
    axes.imshow(item.picture, extent=extent, interpolation="antialiased")
    if item.tissue.any() and not item.tissue.all():
        rows, columns = item.tissue.shape
        x, y = (np.arange(columns) + 0.5) * width / columns, (np.arange(rows) + 0.5) * height / rows
        axes.contour(x, y, item.tissue, levels=[0.5], colors="#333333", linewidths=0.7)
    for side, (left, top, w, h) in item.parts.items():
        colour = TRAIN if side == "train" else TEST
        face = "none" if side == "train" else (colour, 0.15)
        axes.add_patch(Frame((left, top), w, h, facecolor=face, edgecolor=colour, linewidth=2))
    axes.set_title(item.name, fontsize=8)
    axes.set_axis_off()


def _draw_pair(left: Axes, right: Axes, pair: Pair | None, labels: Labels) -> None:
    left.set_axis_off()
    right.set_axis_off()
    if pair is None:
        return
    left.imshow(pair.picture)
    left.set_title(pair.title, fontsize=6.5, loc="left", pad=2)
    if pair.label_map is None:
        right.text(0.5, 0.5, "no labels", ha="center", va="center", fontsize=8, color="grey")
    else:
        right.imshow(labels.overlay(pair.picture, pair.label_map, alpha=0.55), interpolation="nearest")


def _legend(figure: Figure, labels: Labels) -> None:
    swatches = [
        Swatch(facecolor=[c / 255 for c in colour], edgecolor="grey", label=f"{i} {name}")
        for i, (name, colour) in enumerate(zip(labels.classes, labels.colours, strict=True))
    ]
    swatches += [
        Swatch(facecolor=face, edgecolor=colour, label=f"{side} part")
        for side, colour, face in (("training", TRAIN, "none"), ("test", TEST, (TEST, 0.15)))
    ]
    figure.legend(
        handles=swatches, loc="outside lower center", ncols=min(8, len(swatches)), fontsize=9, frameon=False
    )
