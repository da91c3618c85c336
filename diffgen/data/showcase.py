"""What the contact sheet shows of a run: patches spread evenly over it, and the first sources as a whole."""

from collections.abc import Mapping, Sequence

import numpy as np

from diffgen.config import Settings
from diffgen.data.contact_sheet import Overview, Pair
from diffgen.data.cut import EncodedPatch, Recipe, decode
from diffgen.data.maps import open_source, read_labels
from diffgen.data.patches import PatchBox, Rectangle
from diffgen.data.plan import SourcePlan, layout_of
from diffgen.data.slides import LeftOut, Slide
from diffgen.labels import LabelMap, Picture

COUNTS = {"image": 12, "mask": 8}
OVERVIEWS, OVERVIEW_PX = 4, 700
"""Sources shown as a whole, and the longer side of their pictures."""
PIXELS_PER_MASK_PIXEL = 4  # enough to see what a mask pixel stands for


def choose(every: Sequence[PatchBox]) -> set[int]:
    """Places, among all patches of a run, of those to show."""
    chosen: set[int] = set()
    for kind, count in COUNTS.items():
        places = [i for i, patch in enumerate(every) if patch.kind == kind]
        if places:
            chosen |= {
                places[i] for i in np.linspace(0, len(places) - 1, min(count, len(places))).astype(int)
            }
    return chosen


def overviews(plans: Sequence[SourcePlan], recipe: Recipe, settings: Settings) -> list[Overview]:
    """The first sources, with their tissue and their parts of the split."""
    shown = []
    for plan in plans[:OVERVIEWS]:
        try:
            slide = _open(plan)
            size = slide.size(settings.prepare.mpp)
            um = settings.prepare.mpp * max(1.0, max(size) / OVERVIEW_PX)
            picture = _read(plan, slide, (0, 0, *slide.size(um)), um, recipe)
        except LeftOut:  # damaged somewhere, and named in the report where patches were to come from
            continue
        shown.append(Overview(plan.scan.source.name, picture, plan.scan.tissue, size, plan.parts))
    return shown


def pairs(
    plans: Sequence[SourcePlan], samples: Sequence[EncodedPatch], recipe: Recipe, settings: Settings
) -> list[Pair]:
    """Pictures with their label maps; a mask patch gets its picture from its source."""
    by_name = {plan.scan.source.name: plan for plan in plans}
    shown = []
    for sample in samples:
        meta = sample.meta
        label_map = None if sample.mask is None else decode(sample.mask)
        try:
            picture = (
                decode(sample.png)
                if sample.png
                else _picture(by_name[meta["source"]], meta, recipe, settings)
            )
        except LeftOut:
            continue
        if label_map is not None:
            label_map = enlarged(label_map, picture)
        shown.append(Pair(f"{meta['source']}  {meta['x']}, {meta['y']}  {sample.split}", picture, label_map))
    return shown


def enlarged(label_map: LabelMap, picture: Picture) -> LabelMap:
    """A label map, by nearest, at the size of a picture of the same place."""
    rows, columns = (np.arange(n) * m // n for n, m in zip(picture.shape[:2], label_map.shape, strict=True))
    return label_map[rows[:, None], columns[None, :]]


def _picture(plan: SourcePlan, meta: Mapping[str, int], recipe: Recipe, settings: Settings) -> Picture:
    factor = max(1, settings.mask_pixel_px // PIXELS_PER_MASK_PIXEL)
    side = layout_of(settings).mask_side // factor
    x, y = meta["x"] // factor, meta["y"] // factor
    return _read(plan, _open(plan), (x, y, side, side), settings.prepare.mpp * factor, recipe)


def _read(plan: SourcePlan, slide: Slide, box: Rectangle, um: float, recipe: Recipe) -> Picture:
    """A region of a source; of a label map, its classes in their colours."""
    if plan.scan.source.is_map:
        return recipe.labels.paint(read_labels(plan.scan.source, slide, recipe.table, box, um))
    return slide.read(*box, um)


def _open(plan: SourcePlan) -> Slide:
    return open_source(plan.scan.source, plan.scan.mpp[0] if plan.scan.assumed else None)[0]
