"""Copies by name: which synthetic region shows which training region, and how it lies there."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffgen.evaluation import local_features
from diffgen.evaluation.copies import Matches
from diffgen.evaluation.copy_search import TissueMatches
from diffgen.evaluation.images import RegionSet
from diffgen.evaluation.page import Table

NAMED, SHOWN = 1000, 30
"""Copies in `metrics.json` and in the report, at most; the surest first."""


def how(found: TissueMatches, row: int, side: int) -> str:
    """How a training region lies in a picture, in words; lengths in pixels of a region of `side`."""
    over, middle = found.maps[row], np.full(2, (local_features.SIDE - 1) / 2)
    scale = float(np.hypot(over[0, 0], over[1, 0]))
    angle = round(float(np.degrees(np.arctan2(over[1, 0], over[0, 0])))) % 360
    x, y = (over[:, :2] @ middle + over[:, 2] - middle) * side / local_features.SIDE
    if found.mirrored[row]:
        x = -x
    words = [
        *(["mirrored"] if found.mirrored[row] else []),
        *([f"turned by {angle}°"] if 3 < angle < 357 else []),
        *([f"{scale:.2f} times as large"] if abs(scale - 1) > 0.03 else []),
        *([f"shifted by {x:.0f}, {y:.0f} px"] if max(abs(x), abs(y)) > 1 else []),
    ]
    return ", ".join(words).replace("-", "−") or "in place"


def named(
    matches: Matches | None, exact: NDArray[np.intp], synthetic: RegionSet, training: RegionSet
) -> list[dict[str, Any]]:
    """The synthetic regions that are copies, each with its training region, the surest first.

    `exact` (N,) is the training region with the very pixels of each, or -1.
    """
    return list(_named(matches, exact, synthetic, training))[:NAMED]


def _named(
    matches: Matches | None, exact: NDArray[np.intp], synthetic: RegionSet, training: RegionSet
) -> Iterator[dict[str, Any]]:
    same = exact >= 0
    order = np.arange(len(same))
    if matches is not None:
        order = np.lexsort((-matches.ncc, -matches.found.agreeing, ~matches.tissue, exact < 0))
        same = same | matches.same
    for row in order[same[order]].tolist():
        is_exact = exact[row] >= 0
        partner = int(exact[row]) if is_exact or matches is None else int(matches.indices[row])
        one, other = synthetic.regions[row], training.regions[partner]
        words = "the very pixels" if is_exact or matches is None else (
            how(matches.found, row, synthetic.side) if matches.tissue[row] else "alike, perhaps by chance"
        )  # fmt: skip
        yield {
            "image": one.image, "y": one.y, "x": one.x,
            "training_image": other.image, "training_y": other.y, "training_x": other.x,
            "how": words,
            "agreeing": None if matches is None else int(matches.found.agreeing[row]) / 64,
            "ncc": None if matches is None else float(matches.ncc[row]),
        }  # fmt: skip


def table(found: list[dict[str, Any]]) -> Iterator[Table]:
    """The first of them, where there are any."""
    if found:
        rows = [
            [f"{one['image']} ({one['x']}, {one['y']})",
             f"{one['training_image']} ({one['training_x']}, {one['training_y']})", one["how"],
             "–" if one["agreeing"] is None else f"{100 * one['agreeing']:.0f} %"]
            for one in found[:SHOWN]
        ]  # fmt: skip
        note = f"The first {SHOWN} of {len(found)}; all are in metrics.json." if len(found) > SHOWN else ""
        yield Table(
            "Copies that were found",
            ["synthetic (x, y)", "training region", "how it lies there", "of the region that agrees"],
            rows,
            note,
        )
