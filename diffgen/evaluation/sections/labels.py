"""Are the label maps like real ones? Shares, regions and boundaries (Fig. 8)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from diffgen.errors import UserError
from diffgen.evaluation import plots
from diffgen.evaluation.bootstrap import as_json
from diffgen.evaluation.label_maps import Comparison, Errors, compare_counts, counted, errors
from diffgen.evaluation.page import Block, Plot, Table, Verdict
from diffgen.evaluation.run import EvaluationRun, SectionResult
from diffgen.evaluation.sections.cells import cell, level_of_errors, percent
from diffgen.evaluation.sets import Sets, numbered
from diffgen.labels import Labels

TITLE = "Are the label maps like real ones?"
SHARE, BOUNDARY = (0.05, 0.15), (0.2, 0.5)
"""Errors (of shares in all, of boundaries relative) up to which labels are good, and fair."""
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
    regions = [one.drawn(number) for one in (real, sets.synthetic.labelled, other)]
    maps, sources = [counted(one.label_maps(), len(labels)) for one in regions], numbered(regions)
    drawn, ceiling = (compare_counts(maps[0], maps[i], sets.mpp or 1.0) for i in (1, 2))
    of_drawn, of_real = (
        errors(maps[0], maps[i], (sources[0], sources[i]), run.settings.bootstrap) for i in (1, 2)
    )
    said, given = verdict(of_drawn, of_real), sets.synthetic.images.given_label_maps
    if given:
        why = "The label maps were given and filled, not drawn: this says nothing of a mask model."
        said = Verdict("unknown", said.number, why)
    shares = {"real": drawn.real, "synthetic": drawn.generated, "real against real": ceiling.generated}
    blocks: list[Block] = [
        Plot(
            "Label shares (Fig. 8)",
            plots.bars(labels.classes[1:], {name: one.shares[1:] for name, one in shares.items()},
                       "share of known pixels"),
            f"{len(regions[0]):,} real maps of the training set, {len(regions[1]):,} synthetic ones, and "
            f"{len(regions[2]):,} other real ones. The intervals of the differences are in the table.",
        ),
        _errors(labels, of_drawn, of_real),
        _table(labels, drawn, ceiling,
               "" if sets.mpp else " (pixels: no set says its µm per pixel, 1 is taken)"),
    ]  # fmt: skip
    figures = {
        "classes": list(labels.classes),
        "given_label_maps": given,
        "synthetic": as_json(drawn),
        "real_against_real": as_json(ceiling),
        "errors": {"synthetic": as_json(of_drawn), "real_against_real": as_json(of_real)},
    }
    return SectionResult(said, blocks, figures)


def check_labelled(sets: Sets) -> None:
    """`UserError` where the training set or the synthetic one has no label maps at all."""
    for crops in (sets.training, sets.synthetic):
        if not len(crops.labelled):
            raise UserError(f"{crops.images.where} has no label maps")


def verdict(drawn: Errors, ceiling: Errors) -> Verdict:
    """By the largest error of a share and the median error of boundaries, and by their intervals."""
    found = [(drawn.largest_share, SHARE), *([(drawn.boundary, BOUNDARY)] if drawn.boundary else [])]
    level = level_of_errors(found)
    said = (
        f"Other real maps have {percent(ceiling.largest_share.value)}"
        + (f" and {percent(ceiling.boundary.value, 0)}" if ceiling.boundary else "")
        + f". Good where they are surely no more than {SHARE[0]:.0%} and {BOUNDARY[0]:.0%}, fair up to "
        f"{SHARE[1]:.0%} and {BOUNDARY[1]:.0%}."
    )
    if level == "unknown":
        ends = [percent(end) for end in (drawn.largest_share.low, drawn.largest_share.high)]
        said = f"Too few label maps to tell: a share may be {ends[0]} to {ends[1]} off. {said}"
    number = f"largest error of a share {percent(drawn.largest_share.value)}"
    if drawn.boundary:
        number += f", of boundaries {percent(drawn.boundary.value, 0)}"
    return Verdict(level, number, said)


def _errors(labels: Labels, drawn: Errors, ceiling: Errors) -> Table:
    rows = [
        [name, cell(one, 3, None), cell(other, 3, None)]
        for name, one, other in zip(labels.classes[1:], drawn.shares, ceiling.shares, strict=True)
    ]
    rows += [
        [
            "largest error of a share",
            cell(drawn.largest_share, 3, None),
            cell(ceiling.largest_share, 3, None),
        ],
        ["error of boundaries (median)", cell(drawn.boundary, 2, None), cell(ceiling.boundary, 2, None)],
    ]
    note = (
        "Differences from the training maps, without their sign; right is 0. Intervals of 95 % over sources; "
        " the lower ends of shares are for all classes together."
    )
    return Table("Errors", ["", "synthetic", "real against real"], rows, note)


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
        "×: ratio to the real training maps; 1 is right. They describe these maps, so have no intervals: "
        f"those of what is judged are in the table of errors. Unknown pixels: {percent(drawn.real.unknown)} "
        f"of real, {percent(drawn.generated.unknown)} of synthetic maps{unit}.",
    )
