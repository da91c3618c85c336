"""Are the label maps like real ones? Shares, regions and boundaries (Fig. 8)."""

import numpy as np

from diffgen.evaluation import plots
from diffgen.evaluation.bootstrap import as_json
from diffgen.evaluation.label_maps import Comparison, compare
from diffgen.evaluation.page import Block, Level, Plot, Section, Table, Verdict
from diffgen.evaluation.run import EvaluationRun, SectionResult
from diffgen.evaluation.sections.cells import percent
from diffgen.evaluation.sets import Sets
from diffgen.labels import Labels

TITLE = "Are the label maps like real ones?"
SHARE, BOUNDARY = (0.03, 0.10), (0.2, 0.5)
"""Errors (of shares in all, of boundaries relative) up to which labels are good, and fair."""
TWICE = 2.0
"""What real maps against real ones reach excuses as much."""
BLIND = (
    "Label maps are measured as a set: a generator that repeats the training maps is perfect by this.",
    "Of form only the length of boundaries and the number and size of regions count, not where they lie.",
    "Regions that the edge of a picture cuts count whole, alike in both sets.",
)


def build(run: EvaluationRun) -> SectionResult:
    """Synthetic label maps against those of the training set, and held-out ones beside them."""
    sets, labels = run.sets, run.sets.labels
    lacking = without_labels(sets)
    if lacking or labels is None:
        return _unknown(lacking or "no labels.json names the classes")
    real, other = sets.halves[1].labelled, sets.halves[0].labelled
    if not len(other):
        return _unknown("The held-out images have no label maps")
    number = min(sets.samples, len(real))
    maps = [list(one.drawn(number).label_maps()) for one in (real, sets.synthetic.labelled, other)]
    mpp = sets.mpp or 1.0
    drawn, ceiling = (compare(maps[0], maps[i], len(labels), mpp) for i in (1, 2))
    how = run.how("labels")
    unit = "" if sets.mpp else " (pixels: no set says its µm per pixel, 1 is taken)"
    known = range(1, len(labels))
    shares = plots.bars(
        [labels.classes[i] for i in known],
        {"real": drawn.real.shares[1:], "synthetic": drawn.generated.shares[1:],
         "real against real": ceiling.generated.shares[1:]},
        "share of known pixels",
    )  # fmt: skip
    blocks: list[Block] = [
        Plot("Label shares (Fig. 8)", shares,
             f"{len(maps[0]):,} real maps of the training set, {len(maps[1]):,} synthetic ones, and "
             f"{len(maps[2]):,} other real ones.", how),
        _table(labels, drawn, ceiling, unit, how),
    ]  # fmt: skip
    given = sets.synthetic.images.given_label_maps
    said = verdict(drawn, ceiling)
    if given:
        why = "The label maps were given and filled, not drawn: this says nothing of a mask model."
        said = Verdict("unknown", said.number, why)
    return SectionResult(
        Section("labels", TITLE, said, blocks, BLIND),
        {
            "classes": list(labels.classes),
            "given_label_maps": given,
            "synthetic": as_json(drawn),
            "real_against_real": as_json(ceiling),
        },
    )


def without_labels(sets: Sets) -> str | None:
    """Which set has no label maps at all, if one has none."""
    for crops in (sets.training, sets.synthetic):
        if not len(crops.labelled):
            return f"{crops.images.where} has no label maps"
    return None


def verdict(drawn: Comparison, ceiling: Comparison) -> Verdict:
    """By the largest error of a share and the median error of boundaries."""
    errors = (drawn.largest_share_error, drawn.boundary_error)
    possible = (ceiling.largest_share_error, ceiling.boundary_error)
    level: Level = "poor"
    for name, place in (("fair", 1), ("good", 0)):
        bounds = (max(SHARE[place], TWICE * possible[0]), max(BOUNDARY[place], TWICE * possible[1]))
        if errors[0] <= bounds[0] and errors[1] <= bounds[1]:
            level = "good" if name == "good" else "fair"
    number = f"largest error of a share {percent(errors[0])}, of boundaries {percent(errors[1], 0)}"
    return Verdict(
        level,
        number,
        f"Other real maps have {percent(possible[0])} and {percent(possible[1], 0)}. Good up to "
        f"{SHARE[0]:.0%} and {BOUNDARY[0]:.0%}, fair up to {SHARE[1]:.0%} and {BOUNDARY[1]:.0%}, or twice "
        "what real maps have.",
    )


def _table(labels: Labels, drawn: Comparison, ceiling: Comparison, unit: str, how: str) -> Table:
    rows = []
    for i in range(1, len(labels)):
        if not np.isfinite(drawn.region_ratio[i]):
            continue
        rows.append([
            labels.classes[i],
            percent(drawn.real.shares[i]), percent(drawn.generated.shares[i]),
            f"{drawn.region_ratio[i]:.2f}", f"{ceiling.region_ratio[i]:.2f}",
            f"{drawn.real.region_um2[i]:,.0f}", f"{drawn.generated.region_um2[i]:,.0f}",
            f"{drawn.boundary_ratio[i]:.2f}", f"{ceiling.boundary_ratio[i]:.2f}",
        ])  # fmt: skip
    return Table(
        "Regions and boundaries",
        ["class", "share, real", "synthetic", "regions, synthetic ×", "other real ×",
         "µm² a region, real", "synthetic", "boundary, synthetic ×", "other real ×"],
        rows,
        note=f"×: ratio to the real training maps; 1 is right. Unknown pixels: {percent(drawn.real.unknown)} "
        f"of real, {percent(drawn.generated.unknown)} of synthetic maps{unit}.",
        command=how,
    )  # fmt: skip


def _unknown(why: str) -> SectionResult:
    verdict = Verdict("unknown", "–", f"{why}.")
    return SectionResult(Section("labels", TITLE, verdict), {"not_measured": why})
