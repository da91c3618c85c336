"""Time of the copy search of `diffgen evaluate`, by its parts and by the number of regions.

    python -m benchmarks.copy_search FOLDER [--regions 10000] [--training 20000] [--side 128] [--json FILE]

Regions overlap, so that a few hundred pictures give so many; half of the pictures are searched in, regions of
the others are looked for. Without FOLDER textures are made. CPU time is that of all threads: over the time on
the clock it says how many cores were had.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.planted_copies import made, opened, some
from diffgen import progress
from diffgen.evaluation.copies import matches, searched_in
from diffgen.evaluation.patterns import fingerprints

STRIDE = 0.25
"""Step between regions, in sides."""


def measured(folder: Path | None, regions: int, training: int, side: int, console: Console) -> dict[str, Any]:
    pictures = made(40, side) if folder is None else opened(folder)
    step = max(1, int(STRIDE * side))
    every = [
        (name, (y, x, side))
        for name, one in pictures.items()
        for y in range(0, one.shape[0] - side + 1, step)
        for x in range(0, one.shape[1] - side + 1, step)
    ]
    half = set(sorted(pictures)[::2])
    inside = some([one for one in every if one[0] in half], training)
    asked = some([one for one in every if one[0] not in half], regions)
    times: dict[str, list[float]] = {}

    def timed(what: str, work: Callable[[Callable[[int], object]], Any], total: int) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        with progress.bar(console, transient=True) as bar:
            row = bar.add_task(what, total=total, figures="regions")
            result = work(lambda count: bar.advance(row, count))
        times[what] = [time.perf_counter() - wall, time.process_time() - cpu]
        return result

    def seen(of: list[Any]) -> Any:
        return fingerprints(pictures[n][y : y + s, x : x + s] for n, (y, x, s) in of)

    prints = timed("patterns of both", lambda _: [seen(inside), seen(asked)], 0)
    of = timed("points searched in", lambda done: searched_in(prints[0], done), len(inside))
    found = timed("search", lambda done: matches(prints[1], prints[0], of, done), 2 * len(asked))
    return {
        "side": side,
        "training regions": len(inside),
        "regions looked for": len(asked),
        "taken for the same": int(found.tissue.sum()),
        "peak GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "s, CPU s": times,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--regions", type=int, default=10_000)
    parser.add_argument("--training", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args(arguments)
    console = Console()
    found = measured(given.folder, given.regions, given.training, given.side, console)
    numbers = f"{found['regions looked for']:,} against {found['training regions']:,}"
    table = Table("part", "s", "CPU s", title=f"copy search, {numbers}, {given.side} px")
    for part, (wall, cpu) in found["s, CPU s"].items():
        table.add_row(part, f"{wall:.1f}", f"{cpu:.1f}")
    wall, cpu = (sum(times[k] for times in found["s, CPU s"].values()) for k in (0, 1))
    table.add_row("all", f"{wall:.1f}", f"{cpu:.1f}")
    table.add_row("peak GB", f"{found['peak GB']:.1f}", "")
    console.print(table)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
