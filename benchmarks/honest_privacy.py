"""How often `diffgen evaluate` calls honest pictures copies: real tissue judged as if it was synthetic.

    python -m benchmarks.honest_privacy FOLDER [--regions 100] [--resamples 100] [--json FILE]

Each time the pictures of FOLDER are parted by source into a training set, "synthetic" and held-out pictures,
--regions of each (one a picture), and judged by features alone: C_T, authenticity, membership inference.
How often the copy search errs is told by benchmarks/planted_copies.py ("different tissue").
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from benchmarks.planted_copies import opened
from diffgen import progress
from diffgen.evaluation import backbones
from diffgen.evaluation.memorization import Reference, membership
from diffgen.evaluation.sections.privacy_verdict import Evidence, verdict


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--grouped", action="store_true", help="names are SOURCE-NUMBER")
    parser.add_argument("--regions", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--resamples", type=int, default=100)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args(arguments)
    pictures, console = opened(given.folder), Console()
    names = [str(n) for n in np.random.default_rng(1).permutation(sorted(pictures))[: given.pictures]]
    places = [(name, (0, 0, given.side)) for name in names]
    sources = np.array([name.rsplit("-", 1)[0] if given.grouped else name for name in names])
    network, found = backbones.load("efficientnet-lite0"), []
    levels, alone = Counter[str](), Counter[str]()
    with progress.bar(console) as bar:
        row = bar.add_task("features", total=len(places), figures="regions")
        for start in range(0, len(places), 16):
            crops = [pictures[n][y : y + s, x : x + s] for n, (y, x, s) in places[start : start + 16]]
            found.append(network(np.stack(crops))[0])
            bar.advance(row, len(crops))
        features = np.concatenate(found)
        row = bar.add_task("verdicts", total=given.resamples, figures="resamples")
        for seed in range(given.resamples):
            level, poor = judged(features, sources, given.regions, seed)
            levels[level] += 1
            alone.update(poor)
            bar.advance(row)
    total = sum(levels.values())
    interval = binomtest(levels["poor"], total).proportion_ci()
    told = {
        "regions of each": given.regions, "resamples": total, "verdicts": dict(levels),
        "poor": [levels["poor"] / total, interval.low, interval.high], "fair because": dict(alone),
    }  # fmt: skip
    table = Table("", "", title="honest pictures, by features", show_header=False)
    for name, value in told.items():
        table.add_row(name, str(value))
    console.print(table)
    if given.json:
        given.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def judged(features: np.ndarray, sources: np.ndarray, count: int, seed: int) -> tuple[str, list[str]]:
    """The verdict by features alone, and what it says was found."""
    rng = np.random.default_rng(seed)
    part = dict(zip(np.unique(sources), rng.permutation(np.arange(len(np.unique(sources))) % 3), strict=True))
    which, numbers = np.array([part[one] for one in sources]), np.unique(sources, return_inverse=True)[1]
    training, synthetic, held = (rng.permutation(np.flatnonzero(which == k))[:count] for k in range(3))
    real = Reference(features[training], features[held], numbers[training], numbers[held])
    memory = real.judged(features[synthetic], numbers[synthetic], count=200)
    auc = membership(
        features[training], features[held], features[synthetic], numbers[training], numbers[held], count=200
    )
    said = verdict(Evidence(memory, None, 0, auc, count, count, "", 0, count))
    known = "poor" if said.level == "poor" else "fair or good"
    words = ("C_T < 0", "authenticity is below", "features cannot tell", "AUC", "nearer to one another")
    return known, [word for word in words if word in said.text]


if __name__ == "__main__":
    main()
