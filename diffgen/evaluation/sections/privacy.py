"""How private? Whether synthetic regions are copies of training regions, or of one another."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from diffgen import progress
from diffgen.evaluation import plots
from diffgen.evaluation.bootstrap import as_json
from diffgen.evaluation.copies import SAME, SIDE, Copies, Patterns, evaluate_copies, patterns
from diffgen.evaluation.images import RegionSet
from diffgen.evaluation.memorization import Memorization, evaluate_memorization
from diffgen.evaluation.page import Block, Gallery, Level, Note, Plot, Section, Table, Tile, Verdict
from diffgen.evaluation.run import EvaluationRun, SectionResult
from diffgen.evaluation.sections.cells import cell, percent, tile
from diffgen.evaluation.sets import numbered
from diffgen.labels import Picture

Rows = NDArray[np.intp]

TITLE = "How private?"
SHOWN = 12
BLIND = (
    "A copy of a part of a training region, or one that is shifted by more than a sixtieth of its side: "
    "features see it poorly, pixels not at all.",
    "Few copies among many others hardly move C_T and authenticity, which see tendencies: look at the "
    "galleries, which show the nearest first.",
    "Training data with near-duplicates in it (overlapping crops, glass) hides copies from authenticity.",
    "What is copied of a patient but is not in the pixels of one region, such as a rare order of glands over "
    "a slide, is not looked for. None of this is a proof of anonymity.",
)


def build(run: EvaluationRun) -> SectionResult:
    """Figures against the training set; of held-out real regions what copies nothing gets."""
    sets = run.sets
    synthetic, held_out = sets.synthetic, sets.held_out
    every = [sets.training, synthetic, *([held_out] if held_out else [])]
    found = [run.features(crops).values for crops in every]
    sources = numbered(every)
    with run.measuring("looking for copies"):
        memory = evaluate_memorization(
            found[0], found[1], found[2] if held_out else None,
            sources[0], sources[1], sources[2] if held_out else None, count=run.settings.bootstrap,
        )  # fmt: skip
    copies = _copies(run, every, sources[1]) if held_out else None
    how = run.how("privacy")
    blocks = [
        *_tables(memory, copies, len(sets.training), how),
        *_galleries(run, synthetic, memory, copies, how),
    ]
    if held_out is None:
        missing = (
            "No held-out real images are known here, so C_T and the copies by pixels are not measured and "
            "authenticity has nothing beside it: name some with --held-out."
        )
        blocks.insert(0, Note(missing, warning=True))
    return SectionResult(
        Section("privacy", TITLE, verdict(memory, copies), blocks, BLIND),
        {
            "training_regions": len(sets.training),
            "authenticity": as_json(memory.authenticity),
            "authenticity_held_out": as_json(memory.authenticity_held_out),
            "c_t": as_json(memory.data_copying),
            "near_duplicates": {
                "share": as_json(memory.duplicates.share),
                "expected": memory.duplicates.expected,
                "threshold": memory.duplicates.threshold,
            },
            "copies": None if copies is None else {
                "same": as_json(copies.same),
                "same_held_out": copies.same_held_out,
                "above": as_json(copies.above),
                "expected": copies.expected,
                "threshold": copies.threshold,
            },
        },
    )  # fmt: skip


def verdict(memory: Memorization, copies: Copies | None) -> Verdict:
    """Poor where an interval says that there are copies, fair where one says that regions are too near."""
    null, c_t = memory.authenticity_held_out, memory.data_copying
    number = f"authenticity {memory.authenticity.value:.2f}"
    if null is None:
        return Verdict("unknown", number, "Without held-out real images it cannot be said what is near.")
    if c_t is not None:
        number += f", C_T {c_t.c_t.value:.1f}".replace("-", "−")
    found: list[tuple[Level, str]] = []
    if copies is not None and copies.same.value > copies.same_held_out:
        # A copy is an event, not a tendency: where held-out regions are never the same, one is too many.
        certain = copies.same_held_out == 0 or copies.same.low > copies.same_held_out
        said = f"{percent(copies.same.value, 2)} are the same as a training region to the eye"
        found.append(("poor" if certain else "fair", said))
    if memory.exact:
        found.append(("poor", f"{memory.exact} have the very features of a training region"))
    if c_t is not None and c_t.c_t.high < 0:
        found.append(
            ("poor", "synthetic regions are nearer to training regions than held-out ones (C_T < 0)")
        )
    if memory.authenticity.high < null.low:
        found.append(("fair", f"authenticity is below that of held-out regions, {null.value:.2f}"))
    if memory.duplicates.share.low > memory.duplicates.expected:
        found.append(
            (
                "fair",
                f"{percent(memory.duplicates.share.value)} are nearer to one another than 99 % of real ones",
            )
        )
    if found:
        level: Level = "poor" if any(level == "poor" for level, _ in found) else "fair"
        text = "; ".join(said for _, said in found)
        return Verdict(level, number, f"{text[0].upper()}{text[1:]}.")
    unmeasured = [
        *(["C_T (too few samples)"] if c_t is None else []),
        *([f"copies by pixels (regions under {SIDE} px)"] if copies is None else []),
    ]
    if unmeasured:
        return Verdict("unknown", number, f"No sign of copies, but not measured: {', '.join(unmeasured)}.")
    return Verdict("good", number, "No sign of copies: not nearer to training regions than held-out ones.")


def _tables(memory: Memorization, copies: Copies | None, training: int, how: str) -> list[Block]:
    double, c_t = memory.duplicates, memory.data_copying
    rows = [
        ["authenticity (A, eq. 13)", cell(memory.authenticity), cell(memory.authenticity_held_out),
         "more: farther from the training set"],
        ["C_T (eq. 14)", cell(c_t.c_t if c_t else None, 1, None), "0", "≪ 0: copies; ≫ 0: under-fitted"],
        [f"the same to the eye (NCC > {SAME})", cell(copies.same if copies else None, 4),
         cell(copies.same_held_out if copies else None, 4), "share; by pixels, in 8 flips and turns"],
        ["NCC above the 99 % quantile of held-out ones", cell(copies.above if copies else None, 3),
         cell(copies.expected if copies else None, 3), "share"],
        ["near-duplicates inside of the set", cell(double.share, 3), cell(double.expected, 3),
         "share; nearer to one of another image than 1 % of training regions are"],
    ]  # fmt: skip
    note = f"Against {training:,} training regions of that size. Intervals of 95 % over sources."
    blocks: list[Block] = [
        Table("Against the training set", ["", "synthetic", "held-out real", ""], rows, note, how)
    ]
    if c_t is not None:
        cells = [
            [f"{number}", f"{one.held_out:.2f}", f"{one.generated:.2f}", f"{one.z:.1f}".replace("-", "−")]
            for number, one in enumerate(c_t.cells, 1)
        ]
        blocks.append(Table("Cells of C_T", ["cell", "held-out", "synthetic", "Z_U"], cells, command=how))
    return blocks


def _galleries(
    run: EvaluationRun, synthetic: RegionSet, memory: Memorization, copies: Copies | None, how: str
) -> list[Block]:
    training = run.sets.training

    def pairs(rows: Rows, partners: Rows, of: RegionSet, said: Sequence[str]) -> list[Tile]:
        return [
            tile(synthetic, row, None, f"{synthetic.regions[row].image} · {words}",
                 tile(of, partner, None, of.regions[partner].source))
            for row, partner, words in zip(rows.tolist(), partners.tolist(), said, strict=True)
        ]  # fmt: skip

    def gallery(title: str, caption: str, shown: list[Tile]) -> Gallery:
        return Gallery(title, shown, caption, how)

    nearest, ratio = memory.nearest.indices[:, 0], memory.ratio
    first = np.argsort(ratio, kind="stable")[:SHOWN]
    blocks: list[Block] = [
        gallery(
            "Nearest by features: synthetic, and its training region (Fig. 1b)",
            "The nearest first: distance ÷ distance of that training region to its own nearest one. "
            "1 or less is not authentic.",
            pairs(first, nearest[first], training, [f"{ratio[i]:.2f}" for i in first]),
        )
    ]
    if copies is not None:
        ncc = copies.synthetic.ncc
        first = np.argsort(-ncc, kind="stable")[:SHOWN]
        blocks += [
            gallery(
                "Nearest by pixels, in any flip or turn",
                f"Held-out real regions reach {copies.threshold:.2f} in 1 % of cases. "
                "The training region is shown as it is, not turned to match.",
                pairs(first, copies.synthetic.indices[first], training, [f"NCC {ncc[i]:.2f}" for i in first]),
            ),
            Plot(
                "Likeness to the nearest training region",
                plots.histograms(
                    {"real": copies.held_out.ncc, "synthetic": ncc}, "largest |NCC| with a training region"
                ),
                "Real: held-out. Copies would stand at the right end.",
                how,
            ),
        ]
    double = memory.duplicates
    order = np.argsort(double.nearest.distances[:, 0], kind="stable")[:SHOWN]
    said = [f"{double.nearest.distances[i, 0]:.2f}" for i in order]
    blocks.append(
        gallery(
            "Nearest to one another, of two synthetic images",
            f"Distance of features; 1 % of training regions are nearer than {double.threshold:.2f}.",
            pairs(double.rows[order], double.nearest.indices[order, 0], synthetic, said),
        )
    )
    return blocks


def _copies(run: EvaluationRun, sets: Sequence[RegionSet], sources: Rows) -> Copies | None:
    """By pixels; `None` for regions that are too small for it."""
    if run.sets.side < SIDE:
        return None
    found: list[Patterns] = []
    with progress.bar(run.console) as bar:
        row = bar.add_task("pixels", total=sum(map(len, sets)), figures="regions")

        def pictures(crops: RegionSet) -> Iterator[Picture]:
            for picture in crops.pictures():
                yield run.view(picture)
                bar.advance(row)

        found = [patterns(pictures(crops)) for crops in sets]
    with run.measuring("looking for copies by pixels"):
        return evaluate_copies(found[1], found[0], found[2], sources, count=run.settings.bootstrap)
