"""What the copy search of `diffgen evaluate` finds: planted copies, by crime and strength.

    python -m benchmarks.planted_copies FOLDER [--side 128] [--copies 150] [--json FILE]

Half of FOLDER's pictures are the training set (--training of its regions), copies of its regions are planted
(one is found where the search names a training region of the same picture), and regions of the other half say
how often different tissue is taken for the same. A picture's source is its file name, or with --grouped what
precedes the last "-". Without FOLDER textures are made. Times are those of making points of the training set,
and of looking for one region, in ms.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
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


def regions(pictures: Mapping[str, Picture], names: Sequence[str], side: int) -> Regions:
    return [
        (name, (y, x, side)) for name in names
        for y in range(0, pictures[name].shape[0] - side + 1, side)
        for x in range(0, pictures[name].shape[1] - side + 1, side)
    ]  # fmt: skip


def some(of: Regions, count: int) -> Regions:
    rows = np.random.default_rng(0).permutation(len(of))[:count]
    return [of[row] for row in np.sort(rows)]


def measured(
    pictures: Mapping[str, Picture], grouped: bool, side: int, copies: int, training: int, console: Console
) -> dict[str, Any]:
    sources = {name: name.rsplit("-", 1)[0] if grouped else name for name in pictures}
    order = np.random.default_rng(0).permutation(sorted(set(sources.values()))).tolist()
    inside = set(order[: len(order) // 2])
    every = regions(pictures, list(pictures), side)
    real = some([one for one in every if sources[one[0]] in inside], training)
    others = some([one for one in every if sources[one[0]] not in inside], training)

    def seen(of: Regions) -> Any:
        return fingerprints(pictures[n][y : y + s, x : x + s] for n, (y, x, s) in of)

    with progress.bar(console) as bar:
        row = bar.add_task("copies", total=len(CRIMES) * 4 + 2, figures="searches")
        prints, began = seen(real), time.perf_counter()
        of = searched_in(prints)
        bar.advance(row)
        middle = time.perf_counter()
        null = matches(seen(others), prints, of)
        ended = time.perf_counter()
        bar.advance(row)
        found: dict[str, Any] = {}
        planted = some(real, copies)
        for name, (crime, strengths) in CRIMES.items():
            found[name] = {}
            for strength in strengths:
                drawn = fingerprints(crime(pictures[n], place, strength) for n, place in planted)
                got = matches(drawn, prints, of)
                right = [real[k][0] == n for k, (n, _) in zip(got.indices.tolist(), planted, strict=True)]
                found[name][strength] = float((got.same & np.array(right)).mean())
                bar.advance(row)
    alarms = np.flatnonzero(null.tissue)
    interval = binomtest(len(alarms), len(others)).proportion_ci()
    return {
        "side": side,
        "training regions": len(real),
        "copies of each": len(planted),
        "real against real": len(others),
        "taken for the same": [[*map(str, others[k]), *map(str, real[null.indices[k]])] for k in alarms],
        "false alarms": [len(alarms) / len(others), interval.low, interval.high],
        "ms per training region": 1000 * (middle - began) / len(real),
        "ms per region looked for": 1000 * (ended - middle) / len(others),
        "found": found,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--grouped", action="store_true", help="names are SOURCE-NUMBER")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--copies", type=int, default=150)
    parser.add_argument("--training", type=int, default=5000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args(arguments)
    pictures = made(2 * given.copies, given.side) if given.folder is None else opened(given.folder)
    console = Console()
    found = measured(pictures, given.grouped, given.side, given.copies, given.training, console)
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
