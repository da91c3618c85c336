"""Do large images hold together? Seams, order at a distance, colour; and Table 5's tiled and resized."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffgen import progress
from diffgen.errors import UserError
from diffgen.evaluation import plots
from diffgen.evaluation.features import View
from diffgen.evaluation.images import RegionSet
from diffgen.evaluation.large_images import Large, Scores, evaluate_large, scores
from diffgen.evaluation.page import Block, Note, Plot, Table, Verdict
from diffgen.evaluation.run import EvaluationRun, SectionResult
from diffgen.evaluation.sections.cells import RowSpec, band, cell, graded, not_chosen, rows_of, text
from diffgen.evaluation.sets import LEAST, numbered

TITLE = "Do large images hold together?"
TWICE = 2.0
"""What halves of the real images differ by excuses as much."""
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
    found = measured(run, synthetic, real, patch)
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
    """By seams beside those of real images, and by the error of correlation."""
    error, possible = found.correlation_error.value, found.correlation_error_real.mean
    step, seams = 0.0, "seams not measured"
    seen = found.synthetic.seam is not None and found.real.seam is not None
    if found.synthetic.seam is not None and found.real.seam is not None:
        step, seams = (
            abs(found.synthetic.seam.value - found.real.seam.value),
            f"seams {text(found.synthetic.seam)}",
        )
    good, fair = (step <= SEAM[level] and error <= max(ERROR[level], TWICE * possible) for level in (0, 1))
    return Verdict(
        graded(good and seen, fair),
        f"{seams}, correlation by distance off by {text(found.correlation_error)}",
        f"Images of {found.side} px; halves of the real ones are off by {possible:.2f}. Good up to {SEAM[0]} "
        f"from real seams and {ERROR[0]}, fair up to {SEAM[1]} and {ERROR[1]}, or twice what halves have.",
    )


def largest(sets: Sequence[RegionSet], patch: int | None) -> int:
    """Side in pixels of the largest region that all sets have, of whole patches: it begins at a line."""
    side = min(crops.images.largest for crops in sets)
    return side - side % patch if patch and side > patch else side


def measured(run: EvaluationRun, synthetic: RegionSet, real: RegionSet, patch: int | None) -> Large:
    """Figures of large images beside real ones, read one after the other."""
    with progress.bar(run.console) as bar:
        row = bar.add_task("large images", total=len(synthetic) + len(real), figures="images")
        return evaluate_large(
            synthetic, real, patch, run.sets.mpp, view=run.view,
            tell=lambda count: bar.advance(row, count), count=run.settings.bootstrap,
        )  # fmt: skip


def scored(run: EvaluationRun, features: Sequence[Any], sources: Sequence[Any]) -> Scores:
    """Scores of the last of some sets, which stands after the training set and the other real one."""
    known = run.sets.held_out is not None
    return scores(features, sources, held_out=known, k=run.settings.k, count=run.settings.bootstrap)


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
    note = f"{synthetic.images:,} synthetic and {real.images:,} real images of {found.side} px."
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
                [f"{name} ({one.compared:,})", f"{one.precision:.2f}", f"{one.recall:.2f}",
                 cell(one.memory.authenticity), cell(one.memory.authenticity_held_out),
                 cell(one.memory.c_t, 1, None)]
                for name, (values, sources) in features.items()
                for one in [scored(run, values, sources)]
            ],
            "Compare a row with real images treated in the same way only; IP and IR of small sets are "
            "larger than those of large ones.",
        )
    ]  # fmt: skip
