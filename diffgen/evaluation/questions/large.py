"""Do large images hold together? Seams, order at a distance, colour; and Table 5's tiled and resized."""

from collections.abc import Iterator, Sequence

import numpy as np

from diffgen import progress
from diffgen.evaluation import plots
from diffgen.evaluation.bootstrap import as_json
from diffgen.evaluation.features import View
from diffgen.evaluation.fidelity import precision_recall
from diffgen.evaluation.images import Crops, Images
from diffgen.evaluation.large import Large, Sums, evaluate_large, measure
from diffgen.evaluation.memorization import evaluate_memorization
from diffgen.evaluation.page import Block, Gallery, Interval, Level, Note, Plot, Question, Table, Verdict
from diffgen.evaluation.questions.cells import cell, legend, some, text, tile
from diffgen.evaluation.sets import LEAST, numbered
from diffgen.evaluation.study import Answer, Study
from diffgen.labels import Picture

TITLE = "Do large images hold together?"
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


def answer(study: Study) -> Answer:
    """Images as large as both sets have, and two sets of real ones of that size."""
    sets = study.sets
    held_out = sets.held_out
    side = min(sets.synthetic.images.largest, sets.training.images.largest)
    if held_out is not None:
        side = min(side, held_out.images.largest)
    synthetic = _regions(sets.synthetic.images, side)
    real, other = _two(study, side)
    if min(map(len, (synthetic, real, other))) < 2:
        verdict = Verdict("unknown", "–", f"There are too few regions of {side} px to compare.")
        return Answer(Question("large", TITLE, verdict), {"not_measured": verdict.text})
    patch = study.settings.patch_px or sets.synthetic.images.patch_px
    crops = (synthetic, real, other)
    sums = _sums(study, crops, patch if patch and patch < side else None)
    found = evaluate_large(sums, numbered(crops), study.settings.bootstrap)
    how = study.how("large")
    labels = sets.labels
    blocks: list[Block] = [
        _table(found, side, [len(one) for one in crops], patch, how),
        _curve(found, sets.mpp, how),
        *_variants(study, crops, how),
        Gallery(
            "Large synthetic images, not chosen",
            [tile(synthetic, i, labels, synthetic.regions[i].image) for i in some(synthetic, SHOWN)],
            command=how,
            legend=legend(labels),
            large=True,
        ),
    ]
    if found.seam is None:
        blocks.insert(1, Note(
            f"Seams are not measured: images of {side} px are no larger than a patch, or it is not known how "
            "large that is (evaluation.patch_px)."
        ))  # fmt: skip
    return Answer(
        Question("large", TITLE, verdict_of(found, side), blocks, BLIND),
        {"side": side, "patch_px": patch, **as_json(found)},
    )


def verdict_of(found: Large, side: int) -> Verdict:
    """By seams beside those of real images, and by the error of correlation."""
    step, error = 0.0, found.error.value
    number = f"correlation by distance off by {text(found.error)}"
    if found.seam is not None and found.seam_real is not None:
        step = abs(found.seam.value - found.seam_real.value)
        number = f"seams {text(found.seam)}, {number}"
    level: Level = "poor"
    if step <= SEAM[1] and error <= max(ERROR[1], 2 * found.error_real.value):
        level = "fair"
    if step <= SEAM[0] and error <= max(ERROR[0], 2 * found.error_real.value):
        level = "good"
    return Verdict(
        level,
        number,
        f"Images of {side} px; other real ones are off by {found.error_real.value:.2f}. Good up to {SEAM[0]} "
        f"of real seams and {ERROR[0]}, fair up to {SEAM[1]} and {ERROR[1]}, or twice what real images have.",
    )


def _regions(images: Images, side: int) -> Crops:
    return Crops(images, tuple(images.regions(side))).drawn(MOST)


def _two(study: Study, side: int) -> tuple[Crops, Crops]:
    """Real regions of a side, and others: training and held-out ones, or two halves of the sources."""
    sets = study.sets
    if sets.held_out is not None:
        return _regions(sets.training.images, side), _regions(sets.held_out.images, side)
    first = {region.source for region in sets.halves[0].regions}
    every = sets.training.images.regions(side)
    parts = (tuple(r for r in every if (r.source in first) == here) for here in (True, False))
    one, other = (Crops(sets.training.images, part).drawn(MOST) for part in parts)
    return one, other


def _sums(study: Study, sets: Sequence[Crops], patch: int | None) -> list[Sums]:
    with progress.bar(study.console) as bar:
        row = bar.add_task("large images", total=sum(map(len, sets)), figures="images")

        def pictures(crops: Crops) -> Iterator[Picture]:
            for picture in crops.pictures():
                yield study.view(picture)
                bar.advance(row)

        return [measure(pictures(crops), patch) for crops in sets]


def _table(found: Large, side: int, counts: Sequence[int], patch: int | None, how: str) -> Table:
    rows: list[list[str | Interval]] = [
        [f"seams at multiples of {patch} px" if found.seam else "seams", cell(found.seam, 3, None),
         cell(found.seam_real, 3, None), "1 is right"],
        ["error of correlation by distance", cell(found.error, 3, None), cell(found.error_real, 3, None),
         "0 is right; real: other real images"],
        ["drift of colour, over that of real images", cell(found.drift, 2, None), "1",
         "less: more even than tissue; more: blotches"],
        ["pattern common to all images", f"{found.pattern:.1f}", f"{found.pattern_real:.1f}",
         "about 1: none; ≫ 1: one corner is always darker"],
    ]  # fmt: skip
    note = f"{counts[0]:,} synthetic, {counts[1]:,} and {counts[2]:,} real images of {side} px."
    return Table("Seams, distance, colour", ["", "synthetic", "real", ""], rows, note, how)


def _curve(found: Large, mpp: float | None, how: str) -> Plot:
    x = [lag * (mpp or 1.0) for lag in found.lags]
    series = {
        name: plots.Band(*curve)
        for name, curve in (("real", found.correlation_real), ("synthetic", found.correlation))
    }
    image = plots.lines(
        x, series, "distance, µm" if mpp else "distance, px", "correlation of grey", logx=True
    )
    return Plot("Correlation by distance", image, "Bands: 95 % over images.", how)


def _variants(study: Study, crops: Sequence[Crops], how: str) -> list[Block]:
    """Table 5: the same images in tiles, and resized to a tile's size, against real ones treated alike."""
    sets = study.sets
    synthetic = crops[0]
    if synthetic.side < 2 * sets.side or min(map(len, crops)) < LEAST:
        return []
    view = View(resize=sets.side, jpeg=study.settings.jpeg)
    resized = [one.values for one in study.extract([(one, view) for one in crops])]
    tiled = [study.features(one).values for one in (sets.synthetic, sets.training, sets.halves[0])]
    numbers = (numbered([sets.synthetic, sets.training, sets.halves[0]]), numbered(crops))
    rows: list[list[str | Interval]] = []
    for name, (mine, train, rest), of in zip(("tiled", "resized"), (tiled, resized), numbers, strict=True):
        count = min(len(mine), len(rest))
        picked = [np.random.default_rng(0).permutation(len(one))[:count] for one in (rest, mine)]
        balls = precision_recall(rest[picked[0]], mine[picked[1]], study.settings.k)
        held = rest if sets.held_out is not None else None
        memory = evaluate_memorization(
            train, mine, held, of[1], of[0], of[2] if held is not None else None,
            count=study.settings.bootstrap,
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
