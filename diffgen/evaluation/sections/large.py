"""Do large images hold together? Seams, order at a distance, colour; and Table 5's tiled and resized."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffgen import progress
from diffgen.errors import UserError
from diffgen.evaluation import plots
from diffgen.evaluation.features import View
from diffgen.evaluation.images import RegionSet
from diffgen.evaluation.large_images import Judge, Large, Measured, compare, measure
from diffgen.evaluation.page import Block, Note, Plot, Table, Verdict
from diffgen.evaluation.run import EvaluationRun, SectionResult
from diffgen.evaluation.sections.cells import RowSpec, band, cell, level_of_errors, not_chosen, rows_of, text
from diffgen.evaluation.sets import LEAST, numbered

TITLE = "Do large images hold together?"
FEW = 8
"""Images of a set, below which nothing is said."""
MOST = 256
"""Images of a set that are measured: large ones take long to read."""
SEAM, ERROR = (0.05, 0.2), (0.1, 0.25)
"""Distance of seams from those of real images, and error of correlation, up to which they are good, fair."""
SHOWN = 6
ROWS: tuple[RowSpec, ...] = (
    ("drift of colour", lambda s: s.drift, 2, None, 1.0, "deviation inside of images over that between them"),
    ("pattern common to all images", lambda s: s.systematic, 1, None, 1.0,
     "about 1: none; ≫ 1: one corner is always darker"),
)  # fmt: skip
BLIND = (
    "A patch line is looked for where the base patches of a grid end. Covers that move in every step leave "
    "lines elsewhere, which the eye finds sooner.",
    "Order at a distance is that of grey alone: whether a gland closes is not asked.",
    "Nothing larger than the largest real region can be compared.",
)


def build(run: EvaluationRun) -> SectionResult:
    """Images as large as both sets have; of real ones, those of the training set."""
    sets = run.sets
    patch = run.settings.patch_px or sets.synthetic.images.patch_px
    side = largest((sets.training, sets.synthetic, *([sets.held_out] if sets.held_out else [])), patch)
    synthetic, real, other = sets.synthetic.images.crops(side).drawn(MOST), *_two(run, side)
    if min(map(len, (synthetic, real))) < FEW or not len(other):
        raise UserError(f"There are too few regions of {side} px to compare")
    both = [measured(run, crops, patch) for crops in (synthetic, real)]
    found = compare(both[0], both[1], patch, sets.mpp, run.settings.bootstrap)
    blocks: list[Block] = [
        _table(found),
        _curve(found),
        *_variants(run, (real, other, synthetic)),
        not_chosen("Large synthetic images, not chosen", synthetic, SHOWN, sets.labels, large=True),
    ]
    if found.synthetic.seam is None:
        blocks.insert(1, Note(
            f"Seams are not measured: images of {side} px are no larger than a patch, or it is not known how "
            "large that is (evaluation.patch_px)."
        ))  # fmt: skip
    return SectionResult(verdict(found), blocks, found.to_json())


def verdict(found: Large) -> Verdict:
    """By seams beside those of real images, by the error of correlation, and by their intervals."""
    error, seam = found.correlation_error, found.seam_error
    level = level_of_errors([(error, ERROR), *([(seam, SEAM)] if seam else [])])
    if level == "good" and seam is None:
        level = "fair"
    seams = "seams not measured"
    if found.synthetic.seam is not None:
        seams = f"seams {text(found.synthetic.seam)}"
    said = (
        f"Images of {found.side} px; halves of the real ones are off by "
        f"{found.correlation_error_real.mean:.2f}. Good where they are surely no more than {SEAM[0]} off "
        f"real seams and {ERROR[0]} off real correlation, fair up to {SEAM[1]} and {ERROR[1]}."
    )
    if level == "unknown":
        few = f"{found.synthetic.images:,} synthetic and {found.real.images:,} real ones"
        said = f"Too few images to tell: {few}. {said}"
    return Verdict(level, f"{seams}, correlation by distance off by {text(error)}", said)


def largest(sets: Sequence[RegionSet], patch: int | None) -> int:
    """Side in pixels of the largest region that all sets have, of whole patches: it begins at a line."""
    side = min(crops.images.largest for crops in sets)
    return side - side % patch if patch and side > patch else side


def measured(run: EvaluationRun, crops: RegionSet, patch: int | None) -> Measured:
    """What is measured of large images, read one after the other."""
    with progress.bar(run.console) as bar:
        row = bar.add_task("large images", total=len(crops), figures="images")
        return measure(crops, patch, run.view, lambda count: bar.advance(row, count))


def judge(run: EvaluationRun, features: Sequence[Any], sources: Sequence[Any]) -> Judge:
    """Of features of the training set and the other real one."""
    return Judge(features[:2], sources[:2], run.sets.held_out is not None)


def _two(run: EvaluationRun, side: int) -> tuple[RegionSet, RegionSet]:
    """Real regions of a side, and others: training and held-out ones, or two halves of the sources."""
    every = run.sets.training.images.crops(side).drawn(MOST)
    if run.sets.held_out is not None:
        return every, run.sets.held_out.images.crops(side).drawn(MOST)
    sources = list(dict.fromkeys(region.source for region in every.regions))
    inside = np.isin([region.source for region in every.regions], sources[: len(sources) // 2])
    if len(sources) < 2:
        inside = np.arange(len(every)) < len(every) // 2
    return every.part(inside), every.part(~inside)


def _table(found: Large) -> Table:
    synthetic, real = found.synthetic, found.real
    name = "seams" if synthetic.seam is None else f"seams at multiples of {found.patch_px} px"
    rows = [
        [name, cell(synthetic.seam, 3, None), cell(real.seam, 3, None), "right is 1"],
        ["error of correlation by distance", cell(found.correlation_error, 3, None),
         cell(found.correlation_error_real, 3, None), "right is 0; real: one half against the other"],
        *rows_of(ROWS, synthetic, real),
    ]  # fmt: skip
    note = (
        f"{synthetic.images:,} synthetic and {real.images:,} real images of {found.side} px. Intervals of "
        "95 % over sources; ±: deviation over random halves, of which no interval is known."
    )
    return Table("Seams, distance, colour", ["", "synthetic", "real", ""], rows, note)


def _curve(found: Large) -> Plot:
    series = {"real": band(found.real.correlation), "synthetic": band(found.synthetic.correlation)}
    x, label = (found.lags_um, "distance, µm") if found.lags_um else (found.lags_px, "distance, px")
    image = plots.lines(x, series, label, "correlation of grey", logx=True)
    return Plot("Correlation by distance", image, "Bands: 95 % over sources.")


def _variants(run: EvaluationRun, crops: Sequence[RegionSet]) -> list[Block]:
    """Table 5: the same images in tiles, and resized to a tile's size, against real ones treated alike."""
    sets, synthetic = run.sets, crops[-1]
    if synthetic.side < 2 * sets.side or min(map(len, crops)) < LEAST:
        return []
    tiles = (sets.training, sets.halves[0], sets.synthetic)
    view = View(resize=sets.side, jpeg=run.settings.jpeg)
    features = {
        "tiled": ([run.features(one).values for one in tiles], numbered(tiles)),
        "resized": ([one.values for one in run.extract([(one, view) for one in crops])], numbered(crops)),
    }
    return [
        Table(
            f"Tiles of {sets.side} px, and images of {synthetic.side} px resized to that (Tables 1 and 5)",
            ["", "IP", "IR", "authenticity", "of held-out", "C_T"],
            [
                [f"{name} ({one.compared:,})", cell(one.precision), cell(one.recall),
                 cell(one.memory.authenticity), cell(one.memory.authenticity_held_out),
                 cell(one.memory.c_t, 1, None)]
                for name, (values, sources) in features.items()
                for one in [judge(run, values, sources).scores(values[2], sources[2], run.settings.bootstrap)]
            ],
            "Compare a row with real images treated in the same way only; IP and IR of small sets are "
            "larger than those of large ones. Intervals of 95 % over sources.",
        )
    ]  # fmt: skip
