"""Are the label maps like real ones? Shares, regions and boundaries (Fig. 8)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from diffgen.errors import UserError
from diffgen.evaluation import plots
from diffgen.evaluation.bootstrap import as_json
from diffgen.evaluation.label_maps import Comparison, compare
from diffgen.evaluation.page import Block, Plot, Table, Verdict
from diffgen.evaluation.run import EvaluationRun, SectionResult
from diffgen.evaluation.sections.cells import graded, percent
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
    check_labelled(sets)
    if labels is None:
        raise UserError("no labels.json names the classes")
    real, other = sets.halves[1].labelled, sets.halves[0].labelled
    if not len(other):
        raise UserError("The held-out images have no label maps")
    number = min(sets.samples, len(real))
    maps = [list(one.drawn(number).label_maps()) for one in (real, sets.synthetic.labelled, other)]
    drawn, ceiling = (compare(maps[0], maps[i], len(labels), sets.mpp or 1.0) for i in (1, 2))
    said, given = verdict(drawn, ceiling), sets.synthetic.images.given_label_maps
    if given:
        why = "The label maps were given and filled, not drawn: this says nothing of a mask model."
        said = Verdict("unknown", said.number, why)
    shares = {"real": drawn.real, "synthetic": drawn.generated, "real against real": ceiling.generated}
    blocks: list[Block] = [
        Plot(
            "Label shares (Fig. 8)",
            plots.bars(labels.classes[1:], {name: one.shares[1:] for name, one in shares.items()},
                       "share of known pixels"),
            f"{len(maps[0]):,} real maps of the training set, {len(maps[1]):,} synthetic ones, and "
            f"{len(maps[2]):,} other real ones.",
        ),
        _table(labels, drawn, ceiling,
               "" if sets.mpp else " (pixels: no set says its µm per pixel, 1 is taken)"),
    ]  # fmt: skip
    figures = {
        "classes": list(labels.classes),
        "given_label_maps": given,
        "synthetic": as_json(drawn),
        "real_against_real": as_json(ceiling),
    }
    return SectionResult(said, blocks, figures)


def check_labelled(sets: Sets) -> None:
    """`UserError` where the training set or the synthetic one has no label maps at all."""
    for crops in (sets.training, sets.synthetic):
        if not len(crops.labelled):
            raise UserError(f"{crops.images.where} has no label maps")


def verdict(drawn: Comparison, ceiling: Comparison) -> Verdict:
    """By the largest error of a share and the median error of boundaries."""
    errors = (drawn.largest_share_error, drawn.boundary_error)
    possible = (ceiling.largest_share_error, ceiling.boundary_error)

    def within(level: int) -> bool:
        limits = (SHARE[level], BOUNDARY[level])
        return all(e <= max(limit, TWICE * p) for e, p, limit in zip(errors, possible, limits, strict=True))

    return Verdict(
        graded(within(0), within(1)),
        f"largest error of a share {percent(errors[0])}, of boundaries {percent(errors[1], 0)}",
        f"Other real maps have {percent(possible[0])} and {percent(possible[1], 0)}. Good up to "
        f"{SHARE[0]:.0%} and {BOUNDARY[0]:.0%}, fair up to {SHARE[1]:.0%} and {BOUNDARY[1]:.0%}, or twice "
        "what real maps have.",
    )


def _table(labels: Labels, drawn: Comparison, ceiling: Comparison, unit: str) -> Table:
    columns: dict[str, Callable[[Any], str]] = {
        "class": lambda i: labels.classes[i],
        "share, real": lambda i: percent(drawn.real.shares[i]),
        "share, synthetic": lambda i: percent(drawn.generated.shares[i]),
        "regions, synthetic ×": lambda i: f"{drawn.region_ratio[i]:.2f}",
        "regions, other real ×": lambda i: f"{ceiling.region_ratio[i]:.2f}",
        "µm² a region, real": lambda i: f"{drawn.real.region_um2[i]:,.0f}",
        "µm² a region, synthetic": lambda i: f"{drawn.generated.region_um2[i]:,.0f}",
        "boundary, synthetic ×": lambda i: f"{drawn.boundary_ratio[i]:.2f}",
        "boundary, other real ×": lambda i: f"{ceiling.boundary_ratio[i]:.2f}",
    }
    return Table(
        "Regions and boundaries",
        list(columns),
        [[of(i) for of in columns.values()] for i in np.flatnonzero(np.isfinite(drawn.region_ratio))],
        f"×: ratio to the real training maps; 1 is right. Unknown pixels: {percent(drawn.real.unknown)} "
        f"of real, {percent(drawn.generated.unknown)} of synthetic maps{unit}.",
    )
