"""Do large images hold together? Seams, order at a distance, colour; and Table 5's tiled and resized."""

from collections.abc import Sequence

import numpy as np

from diffgen import progress
from diffgen.evaluation import plots
from diffgen.evaluation.features import View
from diffgen.evaluation.fidelity import precision_recall
from diffgen.evaluation.images import Images, RegionSet
from diffgen.evaluation.large import Large, evaluate_large
from diffgen.evaluation.memorization import evaluate_memorization
from diffgen.evaluation.page import Block, Gallery, Interval, Level, Note, Plot, Section, Table, Verdict
from diffgen.evaluation.run import EvaluationRun, SectionResult
from diffgen.evaluation.sections.cells import cell, legend, some, text, tile
from diffgen.evaluation.sets import LEAST, numbered, part

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
    side = largest(run, patch)
    synthetic, real, other = _regions(sets.synthetic.images, side), *_two(run, side)
    if min(map(len, (synthetic, real))) < FEW or not len(other):
        verdict = Verdict("unknown", "–", f"There are too few regions of {side} px to compare.")
        return SectionResult(Section("large", TITLE, verdict), {"not_measured": verdict.text})
    found = measured(run, synthetic, real, patch)
    how, labels = run.how("large"), sets.labels
    blocks: list[Block] = [
        _table(found, how),
        _curve(found, how),
        *_variants(run, (synthetic, real, other), how),
        Gallery(
            "Large synthetic images, not chosen",
            [tile(synthetic, i, labels, synthetic.regions[i].image) for i in some(synthetic, SHOWN)],
            command=how,
            legend=legend(labels),
            large=True,
        ),
    ]
    if found.synthetic.seam is None:
        blocks.insert(1, Note(
            f"Seams are not measured: images of {side} px are no larger than a patch, or it is not known how "
            "large that is (evaluation.patch_px)."
        ))  # fmt: skip
    return SectionResult(Section("large", TITLE, verdict_of(found), blocks, BLIND), found.to_json())


def verdict_of(found: Large) -> Verdict:
    """By seams beside those of real images, and by the error of correlation."""
    assert found.real is not None
    assert found.correlation_error is not None
    assert found.correlation_error_real is not None
    step, error = 0.0, found.correlation_error.value
    possible = found.correlation_error_real.mean
    number = f"seams not measured, correlation by distance off by {text(found.correlation_error)}"
    if found.synthetic.seam is not None and found.real.seam is not None:
        step = abs(found.synthetic.seam.value - found.real.seam.value)
        number = number.replace("seams not measured", f"seams {text(found.synthetic.seam)}")
    level: Level = "poor"
    if step <= SEAM[1] and error <= max(ERROR[1], TWICE * possible):
        level = "fair"
    seen = found.synthetic.seam is not None
    if seen and step <= SEAM[0] and error <= max(ERROR[0], TWICE * possible):
        level = "good"
    return Verdict(
        level,
        number,
        f"Images of {found.side} px; halves of the real ones are off by {possible:.2f}. Good up to {SEAM[0]} "
        f"from real seams and {ERROR[0]}, fair up to {SEAM[1]} and {ERROR[1]}, or twice what halves have.",
    )


def largest(run: EvaluationRun, patch: int | None) -> int:
    """Side in pixels of the largest region that all sets have, of whole patches: it begins at a line."""
    sets = [run.sets.training, run.sets.synthetic, run.sets.held_out]
    side = min(crops.images.largest for crops in sets if crops is not None)
    return side - side % patch if patch and side > patch else side


def measured(run: EvaluationRun, synthetic: RegionSet, real: RegionSet, patch: int | None) -> Large:
    """Figures of large images beside real ones, read one after the other."""
    with progress.bar(run.console) as bar:
        row = bar.add_task("large images", total=len(synthetic) + len(real), figures="images")
        return evaluate_large(
            synthetic, real, patch, run.sets.mpp, view=run.view,
            tell=lambda count: bar.advance(row, count), count=run.settings.bootstrap,
        )  # fmt: skip


def _regions(images: Images, side: int) -> RegionSet:
    return RegionSet(images, tuple(images.regions(side))).drawn(MOST)


def _two(run: EvaluationRun, side: int) -> tuple[RegionSet, RegionSet]:
    """Real regions of a side, and others: training and held-out ones, or two halves of the sources."""
    sets = run.sets
    if sets.held_out is not None:
        return _regions(sets.training.images, side), _regions(sets.held_out.images, side)
    every = _regions(sets.training.images, side)
    sources = list(dict.fromkeys(region.source for region in every.regions))
    first = set(sources[: len(sources) // 2])
    inside = np.array([region.source in first for region in every.regions])
    if len(sources) < 2:
        inside = np.arange(len(every)) < len(every) // 2
    return part(every, inside), part(every, ~inside)


def _table(found: Large, how: str) -> Table:
    synthetic, real = found.synthetic, found.real
    assert real is not None
    name = "seams" if synthetic.seam is None else f"seams at multiples of {found.patch_px} px"
    rows: list[list[str | Interval]] = [
        [name, cell(synthetic.seam, 3, None), cell(real.seam, 3, None), "right is 1"],
        ["error of correlation by distance", cell(found.correlation_error, 3, None),
         cell(found.correlation_error_real, 3, None), "right is 0; real: one half against the other"],
        ["drift of colour", cell(synthetic.drift, 2, None), cell(real.drift, 2, None),
         "deviation inside of images over that between them"],
        ["pattern common to all images", cell(synthetic.systematic, 1, None),
         cell(real.systematic, 1, None), "about 1: none; ≫ 1: one corner is always darker"],
    ]  # fmt: skip
    note = f"{synthetic.images:,} synthetic and {real.images:,} real images of {found.side} px."
    return Table("Seams, distance, colour", ["", "synthetic", "real", ""], rows, note, how)


def _curve(found: Large, how: str) -> Plot:
    assert found.real is not None
    series = {
        name: plots.Band(
            [at.value for at in one.correlation],
            [at.low for at in one.correlation],
            [at.high for at in one.correlation],
        )
        for name, one in (("real", found.real), ("synthetic", found.synthetic))
    }
    x, label = (found.lags_um, "distance, µm") if found.lags_um else (found.lags_px, "distance, px")
    image = plots.lines(x, series, label, "correlation of grey", logx=True)
    return Plot("Correlation by distance", image, "Bands: 95 % over sources.", how)


def _variants(run: EvaluationRun, crops: Sequence[RegionSet], how: str) -> list[Block]:
    """Table 5: the same images in tiles, and resized to a tile's size, against real ones treated alike."""
    sets = run.sets
    synthetic = crops[0]
    if synthetic.side < 2 * sets.side or min(map(len, crops)) < LEAST:
        return []
    view = View(resize=sets.side, jpeg=run.settings.jpeg)
    resized = [one.values for one in run.extract([(one, view) for one in crops])]
    tiled = [run.features(one).values for one in (sets.synthetic, sets.training, sets.halves[0])]
    numbers = (numbered([sets.synthetic, sets.training, sets.halves[0]]), numbered(crops))
    rows: list[list[str | Interval]] = []
    for name, (mine, train, rest), of in zip(("tiled", "resized"), (tiled, resized), numbers, strict=True):
        count = min(len(mine), len(rest))
        picked = [np.random.default_rng(0).permutation(len(one))[:count] for one in (rest, mine)]
        balls = precision_recall(rest[picked[0]], mine[picked[1]], run.settings.k)
        held = rest if sets.held_out is not None else None
        memory = evaluate_memorization(
            train, mine, held, of[1], of[0], of[2] if held is not None else None,
            count=run.settings.bootstrap,
        )  # fmt: skip
        rows.append([
            f"{name} ({count:,})", f"{balls.precise.mean():.2f}", f"{balls.recalled.mean():.2f}",
            cell(memory.authenticity), cell(memory.authenticity_held_out),
            cell(memory.data_copying.c_t if memory.data_copying else None, 1, None),
        ])  # fmt: skip
    return [
        Table(
            f"Tiles of {sets.side} px, and images of {synthetic.side} px resized to that (Tables 1 and 5)",
            ["", "IP", "IR", "authenticity", "of held-out", "C_T"],
            rows,
            note="Compare a row with real images treated in the same way only; IP and IR of small sets are "
            "larger than those of large ones.",
            command=how,
        )
    ]
