"""What the copy search of `diffgen evaluate` finds: planted copies, by crime and strength.

    python -m benchmarks.planted_copies FOLDER [--side 128] [--copies 150] [--json FILE]
    python -m benchmarks.planted_copies FOLDER --copies 0 --step 0.25 --training 0     # false alarms alone

Half of FOLDER's pictures are the training set (--training of its regions), copies of its regions are planted
(one is found where the search names a training region of the same picture), and regions of the other half say
how often different tissue is taken for the same. With --step these are so many sides apart, and each half is
looked for in the other. A picture's source is its file name, or with --grouped what precedes the last "-".
Without FOLDER textures are made. Times are those of making points of the training set, and of looking for one
region, in ms.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from benchmarks.crimes import CRIMES, Picture, Place
from diffgen import progress
from diffgen.evaluation.copies import matches, searched_in
from diffgen.evaluation.patterns import fingerprints

Regions = list[tuple[str, Place]]


def opened(folder: Path) -> dict[str, Picture]:
    paths = sorted(path for path in folder.iterdir() if path.suffix in {".png", ".jpg", ".tif"})
    return {
        path.stem: np.asarray(Image.open(path).convert("RGB")) for path in paths if "_mask" not in path.stem
    }


def made(count: int, side: int) -> dict[str, Picture]:
    from tests.evaluation.crimes import textures

    return {f"{number:03d}": one for number, one in enumerate(textures(count, 0, 2 * side))}


def regions(pictures: Mapping[str, Picture], side: int, step: int) -> Regions:
    return [
        (name, (y, x, side)) for name, picture in pictures.items()
        for y in range(0, picture.shape[0] - side + 1, step)
        for x in range(0, picture.shape[1] - side + 1, step)
    ]  # fmt: skip


def some(of: Regions, count: int) -> Regions:
    """So many of them, in their order; all for 0."""
    rows = np.random.default_rng(0).permutation(len(of))[: count or len(of)]
    return [of[row] for row in np.sort(rows)]


@dataclass(frozen=True)
class Null:
    """Regions that were looked for in tissue of other sources, and which were taken for the same."""

    regions: int
    pictures: int
    alarms: list[list[str]]
    """The two regions, by how many deviations they agree, their correlation, and blocks that are equal."""
    equal: list[int]
    """Regions by their number of equal blocks, those taken for the same left out."""


def measured(
    pictures: Mapping[str, Picture], given: argparse.Namespace, side: int, console: Console
) -> dict[str, Any]:
    sources = {name: name.rsplit("-", 1)[0] if given.grouped else name for name in pictures}
    order = np.random.default_rng(0).permutation(sorted(set(sources.values()))).tolist()
    inside = set(order[: len(order) // 2])
    apart = regions(pictures, side, side)
    close = regions(pictures, side, max(1, round(given.step * side))) if given.step else apart
    real = some([one for one in apart if sources[one[0]] in inside], given.training)
    others = [one for one in close if sources[one[0]] not in inside]
    planted = some(real, given.copies) if given.copies else []

    def seen(of: Regions) -> Any:
        return fingerprints(pictures[n][y : y + s, x : x + s] for n, (y, x, s) in of)

    def null(asked: Regions, training: Regions, prints: Any, of: Any) -> Null:
        got = matches(seen(asked), prints, of, lambda count: bar.advance(row, count / 2))
        alarms = [
            [
                *map(str, asked[k]),
                *map(str, training[got.indices[k]]),
                f"{got.found.peaks[k]:.1f}",
                f"{got.found.ncc[k]:.2f}",
                str(got.found.equal[k]),
            ]
            for k in np.flatnonzero(got.tissue)
        ]
        equal = np.bincount(got.found.equal[~got.tissue]).tolist()
        return Null(len(asked), len({name for name, _ in asked}), alarms, equal)

    with progress.bar(console) as bar:
        prints, began = seen(real), time.perf_counter()
        of = searched_in(prints)
        middle = time.perf_counter()
        asked = others if given.step else some(others, given.training)
        row = bar.add_task("different tissue", total=len(asked), figures="regions")
        nulls = [null(asked, real, prints, of)]
        ended = time.perf_counter()
        if given.step:
            swapped = [one for one in apart if sources[one[0]] not in inside]
            asked = [one for one in close if sources[one[0]] in inside]
            row = bar.add_task("the other way", total=len(asked), figures="regions")
            back = seen(swapped)
            nulls.append(null(asked, swapped, back, searched_in(back)))
        found: dict[str, Any] = {}
        row = bar.add_task("copies", total=len(CRIMES) * 4 * bool(planted), figures="searches")
        for name, (crime, strengths) in CRIMES.items() if planted else ():
            found[name] = {}
            for strength in strengths:
                drawn = fingerprints(crime(pictures[n], place, strength) for n, place in planted)
                got = matches(drawn, prints, of)
                right = [real[k][0] == n for k, (n, _) in zip(got.indices.tolist(), planted, strict=True)]
                found[name][strength] = float((got.same & np.array(right)).mean())
                bar.advance(row)
    alarms = [alarm for one in nulls for alarm in one.alarms]
    looked_for = sum(one.regions for one in nulls)
    interval = binomtest(len(alarms), looked_for).proportion_ci()
    return {
        "side": side,
        "training regions": len(real),
        "copies of each": len(planted),
        "real against real": looked_for,
        "of pictures": sum(one.pictures for one in nulls),
        "taken for the same": alarms,
        "regions by equal blocks": [one.equal for one in nulls],
        "false alarms": [len(alarms) / looked_for, interval.low, interval.high],
        "ms per training region": 1000 * (middle - began) / len(real),
        "ms per region looked for": 1000 * (ended - middle) / nulls[0].regions,
        "found": found,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--grouped", action="store_true", help="names are SOURCE-NUMBER")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--copies", type=int, default=150)
    parser.add_argument("--training", type=int, default=5000, help="regions; 0 for all")
    parser.add_argument(
        "--step", type=float, default=0.0, help="between regions of different tissue, in sides"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args(arguments)
    pictures = made(2 * (given.copies or 20), given.side) if given.folder is None else opened(given.folder)
    console = Console()
    found = measured(pictures, given, given.side, console)
    rate, low, high = (100 * share for share in found["false alarms"])
    table = Table("crime", "strength: % found", title=f"planted copies, {given.side} px")
    for name, shares in found["found"].items():
        table.add_row(
            name, ", ".join(f"{strength:g}: {100 * share:.0f}" for strength, share in shares.items())
        )
    table.add_row("different tissue", f"{rate:.3f} [{low:.3f}, {high:.3f}] of {found['real against real']:,}")
    table.add_row("ms", f"{found['ms per training region']:.1f} a training region, "
                        f"{found['ms per region looked for']:.1f} a region looked for")  # fmt: skip
    console.print(table)
    for pair in found["taken for the same"]:
        console.print("the same tissue:", *pair)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
