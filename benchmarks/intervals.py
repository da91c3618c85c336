"""How often intervals of 95 % hold the truth, and what verdicts come to for honest images: two tables.

    python -m benchmarks.intervals [--features FILE.npy] [--only PART ...] [--runs N] [--json FILE] [--quick]

verdicts     Real against real: `sections.fidelity.verdict` of two sets of one distribution against a third,
             20 to 300 sources of one sample each, two of the real samples far outside; and of sets that are
             wrong: another distribution, noise beside an outlying real sample, copies of one image.
coverage     Sets of features are drawn again and again, each figure is computed with its interval, and
             those that hold the truth are counted. Features are normal, of 96 dimensions with variances as
             1/k; those of one source are correlated (a fifth of the variance is the source's). Synthetic
             ones are of the same distribution, or of another mean and other variances. The truth of KID and
             the Fréchet distance is that of the two populations, exactly; of precision, recall, density and
             coverage the expectation at these numbers of samples and sources (the mean of all runs); of
             authenticity, C_T and near-duplicates the expectation with this training set. "warns": runs,
             each with a real set of its own, in which near-duplicates are said to be more than among real
             ones.

--features: real features (N, d) in a file of numpy, with the numbers of their sources beside it
(FILE.sources.npy): sets are drawn from halves of their sources, and the halves are the populations. One core,
seeded; ten minutes where nothing else runs. With --json what there is can be read as it comes.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from diffgen.evaluation.bootstrap import RESAMPLES, Estimate
from diffgen.evaluation.divergences import principal, squared_frechet
from diffgen.evaluation.memorization import Reference
from diffgen.evaluation.near_duplicates import near_duplicates
from diffgen.evaluation.precision_recall import Fidelity, evaluate_fidelity
from diffgen.evaluation.sections.fidelity import verdict

DIMENSIONS, OF_SOURCE = 96, 0.2
"""Of features, and the part of their variance that is the source's."""
SIZES = ((100, 100), (100, 20), (300, 300), (300, 20), (1000, 1000), (1000, 20))
"""Samples and sources of each set."""
VERDICT_SIZES = (20, 50, 100, 300)
LEVELS = ("good", "fair", "poor", "unknown")
MANY = 1000
"""Samples of a set, from which on there are fewer runs."""
OF_SETS = ("precision", "recall", "density", "coverage")


class Draw(NamedTuple):
    features: NDArray[np.float64]
    sources: NDArray[np.intp]


@dataclass(frozen=True)
class Normal:
    """A normal distribution of features with sources."""

    mean: NDArray[np.float64]
    variances: NDArray[np.float64]

    def draw(self, samples: int, sources: int, rng: np.random.Generator) -> Draw:
        """So many samples of so many sources, as many of each; uncorrelated where each is a source."""
        of = np.arange(samples) * sources // samples
        part = OF_SOURCE if sources < samples else 0.0
        shared, own = (rng.standard_normal((number, DIMENSIONS)) for number in (sources, samples))
        values = np.sqrt(part) * shared[of] + np.sqrt(1 - part) * own
        return Draw(values * np.sqrt(self.variances) + self.mean, of)


@dataclass(frozen=True)
class Pool:
    """Real features, which stand for the population."""

    features: NDArray[np.float64]
    of: NDArray[np.intp]

    def draw(self, samples: int, sources: int, rng: np.random.Generator) -> Draw:
        """Rows of random sources, as many of each as there have to be; sources may be drawn twice."""
        rows = []
        for one in rng.choice(np.unique(self.of), sources):
            rows.append(rng.choice(np.flatnonzero(self.of == one), samples // sources))
        return Draw(self.features[np.concatenate(rows)], np.repeat(np.arange(sources), samples // sources))


def normals() -> dict[str, Normal]:
    """The real distribution, and synthetic ones."""
    variances = 1 / np.arange(1, DIMENSIONS + 1)
    variances *= DIMENSIONS / variances.sum()
    shifted = np.where(np.arange(DIMENSIONS) < 4, 0.8, 0.0)
    other = variances * np.where(np.arange(DIMENSIONS) % 2, 0.7, 1.2)
    return {"same": Normal(np.zeros(DIMENSIONS), variances), "other": Normal(shifted, other)}


def true_kid(real: Normal, synthetic: Normal) -> float:
    """Of two populations, exactly: of the cubic kernel only moments up to the third count."""

    def mean(a: Normal, b: Normal) -> float:
        m, n, s, t = a.mean, b.mean, a.variances, b.variances
        mn, second = m @ n, (s + m * m) @ t + s @ (n * n) + (m @ n) ** 2
        third = mn**3 + 3 * mn * (m * m @ t + n * n @ s + s @ t) + 6 * (m * t * s) @ n
        d = len(m)
        return float(third / d**3 + 3 * second / d**2 + 3 * mn / d + 1)

    return mean(real, real) + mean(synthetic, synthetic) - 2 * mean(real, synthetic)


def true_frechet(real: Normal, synthetic: Normal, basis: NDArray[np.float64]) -> float:
    """Of two populations in some directions (d, c)."""
    return squared_frechet(*(
        part for one in (real, synthetic)
        for part in (one.mean @ basis, basis.T @ (one.variances[:, None] * basis))
    ))  # fmt: skip


def held(found: Sequence[Estimate], truth: Any) -> dict[str, float]:
    """How many intervals hold the truth, one or one a run, how wide they are, and how far off values are."""
    ends = np.array([(one.value, one.low, one.high) for one in found])
    inside = (ends[:, 1] <= truth) & (truth <= ends[:, 2])
    return {
        "truth": float(np.mean(truth)),
        "mean": float(ends[:, 0].mean()),
        "held": float(inside.mean()),
        "half_width": float((ends[:, 2] - ends[:, 1]).mean() / 2),
        "runs": len(ends),
    }


def coverage(samples: int, sources: int, kind: str, runs: int, count: int) -> dict[str, Any]:
    """Of one size and one kind of synthetic set: each figure's `held`."""
    real, synthetic = normals()["same"], normals()[kind]
    found, of_frechet, warned = dict[str, list[Estimate]](), list[float](), 0
    fixed = real.draw(samples, sources, np.random.default_rng([2, samples, sources]))
    for run in range(runs):
        rng = np.random.default_rng([4, samples, sources, run])
        a, b, c = (one.draw(samples, sources, rng) for one in (real, synthetic, real))
        of = b.sources + sources
        fidelity = evaluate_fidelity(a.features, b.features, a.sources, of, count=count, seed=run)
        basis = principal(a.features, fidelity.components)
        of_frechet.append(true_frechet(real, synthetic, basis))
        # The held-out set is drawn anew as well: C_T's interval is over both.
        memory = Reference(fixed.features, c.features, fixed.sources, c.sources + 2 * sources).judged(
            b.features, of, count=count, seed=run
        )
        warned += near_duplicates(a.features, b.features, a.sources, of).more
        shown = {name: getattr(fidelity, name) for name in (*OF_SETS, "kid", "frechet")}
        shown |= {"authenticity": memory.authenticity, "near-duplicates": memory.duplicates.share}
        if memory.c_t is not None:
            shown["C_T"] = memory.c_t
        for name, one in shown.items():
            found.setdefault(name, []).append(one)
    truths: dict[str, Any] = {"kid": true_kid(real, synthetic), "frechet": np.array(of_frechet)}
    figures = {
        name: held(all_runs, truths.get(name, np.mean([one.value for one in all_runs])))
        for name, all_runs in found.items()
    }
    return {"samples": samples, "sources": sources, "synthetic": kind, "figures": figures,
            "warns": warned / runs}  # fmt: skip


def wrong(kind: str, real: Draw, rng: np.random.Generator) -> NDArray[np.float64]:
    """Features that are no real ones, as many."""
    number = len(real.features)
    if kind == "noise":  # beside an outlying real one, in its wide ball, far from all others
        return real.features[0] + rng.standard_normal((number, DIMENSIONS))
    if kind == "one image":
        return np.repeat(real.features[2:3], number, axis=0) + 1e-6 * rng.standard_normal(
            (number, DIMENSIONS)
        )
    return normals()[kind].draw(number, number, rng).features


def verdicts(samples: int, runs: int) -> dict[str, Any]:
    """Levels of so many runs, of honest sets and of others. Two of the real samples are far outside."""
    levels = dict[str, list[str]]()
    of = np.arange(samples)

    def figures(real: NDArray[np.float64], drawn: NDArray[np.float64]) -> Fidelity:
        return evaluate_fidelity(real, drawn, of, of + samples, count=20)

    for run in range(runs):
        rng = np.random.default_rng([5, samples, run])
        real, other, honest = (normals()["same"].draw(samples, samples, rng) for _ in range(3))
        real.features[:2] += 30 * rng.standard_normal((2, DIMENSIONS))
        possible = figures(real.features, other.features)
        drawn = {"honest": honest.features}
        drawn |= {kind: wrong(kind, real, rng) for kind in ("other", "noise", "one image")}
        for kind, features in drawn.items():
            levels.setdefault(kind, []).append(verdict(figures(real.features, features), possible).level)
    return {"samples": samples, "runs": runs, "levels": {
        kind: {level: found.count(level) for level in LEVELS} for kind, found in levels.items()
    }}  # fmt: skip


def from_pool(pool: Pool, samples: int, sources: int, runs: int, count: int) -> dict[str, Any]:
    """As `coverage`, sets drawn from real features against a fixed half of their sources as another
    population."""
    names = np.random.default_rng(6).permutation(np.unique(pool.of))
    parts = [np.isin(pool.of, half) for half in (names[::2], names[1::2])]
    real, synthetic = (Pool(pool.features[part], pool.of[part]) for part in parts)
    found, of_frechet = dict[str, list[Estimate]](), list[float]()
    for run in range(runs):
        rng = np.random.default_rng([7, samples, sources, run])
        a, b = (one.draw(samples, sources, rng) for one in (real, synthetic))
        figures = evaluate_fidelity(
            a.features, b.features, a.sources, b.sources + sources, count=count, seed=run
        )
        basis = principal(a.features, figures.components)
        projected = [one.features @ basis for one in (real, synthetic)]
        moments = [part for x in projected for part in (x.mean(axis=0), np.atleast_2d(np.cov(x.T)))]
        of_frechet.append(squared_frechet(*moments))
        for name in (*OF_SETS, "frechet"):
            found.setdefault(name, []).append(getattr(figures, name))
    truths: dict[str, Any] = {"frechet": np.array(of_frechet)}
    told = {
        name: held(every, truths.get(name, np.mean([one.value for one in every])))
        for name, every in found.items()
    }
    return {"samples": samples, "sources": sources, "synthetic": "real", "figures": told}


def shown(result: dict[str, Any]) -> list[Table]:
    tables = []
    if rows := [*result.get("coverage", []), *result.get("pool", [])]:
        names = list(dict.fromkeys(name for row in rows for name in row["figures"]))
        table = Table(
            "samples", "sources", "synthetic", *names, "warns", title="intervals of 95 % that hold the truth"
        )
        for row in rows:
            cells = [
                f"{row['figures'][name]['held']:.0%}" if name in row["figures"] else "–" for name in names
            ]
            warns = f"{row['warns']:.1%}" if "warns" in row else "–"
            table.add_row(f"{row['samples']:,}", f"{row['sources']:,}", row["synthetic"], *cells, warns)
        tables.append(table)
    if rows := result.get("verdicts", []):
        kinds = list(rows[0]["levels"])
        table = Table("samples", "runs", *kinds, title=f"verdicts: {', '.join(LEVELS)}, in % of runs")
        for row in rows:
            cells = [
                " / ".join(f"{100 * row['levels'][kind][level] / row['runs']:.0f}" for level in LEVELS)
                for kind in kinds
            ]
            table.add_row(f"{row['samples']:,}", f"{row['runs']:,}", *cells)
        tables.append(table)
    return tables


@threadpool_limits.wrap(limits=1)
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--features", type=Path, metavar="FILE.npy", help="real features to draw sets from")
    parser.add_argument("--only", choices=("coverage", "verdicts"), action="append", help="this part")
    parser.add_argument("--runs", type=int, default=50, help="of the smaller sizes; a fifth of them of 1,000")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write or update FILE")
    parser.add_argument("--quick", action="store_true", help="see that it works")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console, chosen = Console(), given.only or ("coverage", "verdicts")
    console.width = max(console.width, 140)
    result = json.loads(given.json.read_text()) if given.json and given.json.exists() else {}
    count = 20 if given.quick else RESAMPLES // 2
    sizes = ((30, 30), (40, 20)) if given.quick else SIZES

    def runs(samples: int) -> int:
        return max(2, given.runs // (5 if samples >= MANY else 1))

    parts = dict[str, list[Callable[[], dict[str, Any]]]]()
    if "verdicts" in chosen:
        few = VERDICT_SIZES[:1] if given.quick else VERDICT_SIZES
        parts["verdicts"] = [partial(verdicts, samples, runs(samples)) for samples in few]
    if "coverage" in chosen:
        parts["coverage"] = [
            partial(coverage, *size, kind, runs(size[0]), count) for size in sizes for kind in normals()
        ]
    if given.features:
        of = np.load(given.features.with_suffix(".sources.npy"))
        pool = Pool(np.load(given.features).astype(float), of)
        parts["pool"] = [partial(from_pool, pool, *size, runs(size[0]), count) for size in sizes]
    for name, rows in parts.items():
        result[name] = []
        for row in rows:
            result[name].append(row())
            if given.json:  # what there is, should it be stopped
                given.json.write_text(json.dumps(result, indent=2) + "\n")
    for table in shown(result):
        console.print(table)


if __name__ == "__main__":
    main()
