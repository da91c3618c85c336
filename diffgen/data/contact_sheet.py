"""One picture to look at before training: the slides with their tissue and split, patches, and labels."""

import tarfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch as Swatch
from matplotlib.patches import Rectangle as Frame
from numpy.typing import NDArray

from diffgen.config import Settings
from diffgen.data.classes import Classes
from diffgen.data.cut import decode
from diffgen.data.formats.base import LeftOut
from diffgen.data.plan import PatchLayout, Rectangle, SourcePlan
from diffgen.data.scan import opened
from diffgen.labels import LabelMap, Labels, Picture
from diffgen.storage import atomic

BLOCKS = (
    ("image", 12, "Image patches, and with their labels"),
    ("mask", 8, "Mask patches: source and label map"),
)
"""Kind of patch, how many of it are shown, spread evenly over the run, and their title."""
OVERVIEWS, OVERVIEW_PX = 4, 700
"""Sources shown as a whole, and the longer side of their pictures."""
PIXELS_PER_MASK_PIXEL = 4  # enough to see what a mask pixel stands for
COLUMNS = 4
"""Pairs (picture, labels) in a row."""
TRAIN, TEST = "#1f6fd6", "#e07b00"

Row = Mapping[str, Any]
"""Of `patches.parquet`."""
Pair = tuple[str, Picture, LabelMap | None]
"""Title, picture and label map (None where unlabelled), both of one size."""


def draw(
    out: Path,
    plans: Sequence[SourcePlan],
    rows: Sequence[Row],
    classes: Classes,
    settings: Settings,
) -> None:
    """Write `contact_sheet.png` into prepared data, from its sources and its patches, `rows` of its index."""
    overviews = []
    for plan in plans[:OVERVIEWS]:
        um = settings.prepare.mpp * max(1.0, max(plan.scan.width, plan.scan.height) / OVERVIEW_PX)
        with suppress(LeftOut):  # damaged somewhere, and named in the report where patches were to come from
            overviews.append((plan, _picture(plan, None, um, classes, settings)))
    by_name = {plan.scan.source.name: plan for plan in plans}
    blocks = []
    for kind, count, title in BLOCKS:
        found, pairs = [row for row in rows if row["kind"] == kind], []
        for k in np.linspace(0, len(found) - 1, min(count, len(found))).astype(int):
            with suppress(LeftOut):
                pairs.append(_pair(out, found[k], by_name, classes, settings))
        if pairs:
            blocks.append((title, pairs))
    with atomic(out / "contact_sheet.png") as file:
        _figure(classes.labels, overviews, blocks).savefig(
            file, format="png", dpi=110, metadata={"Software": None}
        )


def _picture(
    plan: SourcePlan, box: Rectangle | None, um: float, classes: Classes, settings: Settings
) -> Picture:
    """A region of a source (None: all of it), in pixels of `um` µm; of a label map, its classes in colour."""
    source = plan.scan.source
    slide, _ = opened(source, settings)
    box = box or (0, 0, *slide.size(um))
    if not source.is_map:
        return slide.read(*box, um)
    label_map = classes.read(source, slide, *box, um)
    assert label_map is not None, "a label map has labels"
    return classes.labels.paint(label_map)


def _pair(out: Path, row: Row, plans: Mapping[str, SourcePlan], classes: Classes, settings: Settings) -> Pair:
    """A patch as it was written; a mask patch gets its picture from its source."""
    if row["kind"] == "image":
        picture = _stored(out, row, "png")
    else:
        factor = max(1, settings.mask_pixel_px // PIXELS_PER_MASK_PIXEL)
        side = PatchLayout.of(settings).mask_side // factor
        box = (row["x"] // factor, row["y"] // factor, side, side)
        picture = _picture(plans[row["source"]], box, settings.prepare.mpp * factor, classes, settings)
    label_map = enlarged(_stored(out, row, "mask.png"), picture) if row["labelled"] else None
    return f"{row['source']}  {row['x']}, {row['y']}  {row['split']}", picture, label_map


def _stored(out: Path, row: Row, extension: str) -> NDArray[np.uint8]:
    with tarfile.open(out / row["shard"]) as tar:
        file = tar.extractfile(f"{row['key']}.{extension}")
        assert file is not None, "the index names what is there"
        return decode(file.read())


def enlarged(label_map: LabelMap, picture: Picture) -> LabelMap:
    """A label map, by nearest, at the size of a picture of the same place."""
    rows, columns = (np.arange(n) * m // n for n, m in zip(picture.shape[:2], label_map.shape, strict=True))
    return label_map[rows[:, None], columns[None, :]]


def _figure(
    labels: Labels,
    overviews: Sequence[tuple[SourcePlan, Picture]],
    blocks: Sequence[tuple[str, Sequence[Pair]]],
) -> Figure:
    heights = [1.95 * -(-len(pairs) // COLUMNS) + 0.35 for _, pairs in blocks]
    if overviews:
        tallest = max(plan.scan.height / plan.scan.width for plan, _ in overviews)
        heights.insert(0, min(4.5, max(1.5, 14.0 / len(overviews) * tallest)))
    figure = Figure(figsize=(14, sum(heights) + 1.1), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    parts = list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    if overviews:
        part = parts.pop(0)
        part.suptitle("Sources: tissue outlined, training and test parts", fontsize=11, x=0.01, ha="left")
        for axes, item in zip(part.subplots(1, len(overviews), squeeze=False)[0], overviews, strict=True):
            _draw_overview(axes, *item)
    for part, (title, pairs) in zip(parts, blocks, strict=True):
        part.suptitle(title, fontsize=11, x=0.01, ha="left")
        grid = part.subplots(-(-len(pairs) // COLUMNS), 2 * COLUMNS, squeeze=False).reshape(-1, 2)
        for axes in grid.flat:
            axes.set_axis_off()
        for (left, right), pair in zip(grid, pairs, strict=False):
            _draw_pair(left, right, pair, labels)
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
    return figure


def _draw_overview(axes: Axes, plan: SourcePlan, picture: Picture) -> None:
    width, height, tissue = plan.scan.width, plan.scan.height, plan.scan.tissue
    axes.imshow(picture, extent=(0, width, height, 0), interpolation="antialiased")
    if tissue.any() and not tissue.all():
        rows, columns = tissue.shape
        x, y = (np.arange(columns) + 0.5) * width / columns, (np.arange(rows) + 0.5) * height / rows
        axes.contour(x, y, tissue, levels=[0.5], colors="#333333", linewidths=0.7)
    for side, (left, top, w, h) in plan.parts.items():
        colour, face = (TRAIN, "none") if side == "train" else (TEST, (TEST, 0.15))
        axes.add_patch(Frame((left, top), w, h, facecolor=face, edgecolor=colour, linewidth=2))
    axes.set_title(plan.scan.source.name, fontsize=8)
    axes.set_axis_off()


def _draw_pair(left: Axes, right: Axes, pair: Pair, labels: Labels) -> None:
    title, picture, label_map = pair
    left.imshow(picture)
    left.set_title(title, fontsize=6.5, loc="left", pad=2)
    if label_map is None:
        right.text(0.5, 0.5, "no labels", ha="center", va="center", fontsize=8, color="grey")
    else:
        right.imshow(labels.overlay(picture, label_map, alpha=0.55), interpolation="nearest")
