"""What the evaluation costs, and whether blocks of distances give what the naive form gives: one table.

    python benchmarks/metrics.py [DATA] [--only PART ...] [--json FILE] [--quick]

DATA: prepared data, shards or a folder of images for the second part; without one, images of noise.

distances    10,240 against 10,240 features of 1,280 dimensions (and 10,240 held-out ones for C_T): IP, IR,
             density and coverage; A; C_T with its 400 bootstraps. Each run is a fresh process of two threads;
             medians of --repeats, the features and imports not timed. Seconds of all cores are what the
             process computed: where other work takes the cores, half of these is what two would take.
             Memory is the most that the process held (RSS), all of it. Features are a normal distribution
             of 64 dimensions, turned into 1,280 with a little noise; of the synthetic ones some are copies.
             Goals: 60 s, 2 GB.
naive        the same figures from whole matrices of distances by differences in float64, cells and ranks by
             numpy and scipy, on the first 2,048 of each set, as they would not fit else: the largest
             difference of any figure, radius and nearest distance.
extraction   regions per second through `features.extract`, inline and on a Ray pool of one actor, over those
             of the bare network fed from memory: EfficientNet-Lite0, crops of 128 px, one thread, batches of
             16.
             The three take turns: each turn of the command is held against the mean of the bare ones before
             and after it, median. As its rate counts what comes after the first chunk's file, the start of
             Ray and the loading of weights are left out; reading, decoding and writing are not. Goal: 0.9.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.synthesis.memory import most_mb
from benchmarks.turns import ratios
from diffgen.cluster import MALLOC_ENV, connect
from diffgen.evaluation import backbones, features
from diffgen.evaluation.bootstrap import RESAMPLES
from diffgen.evaluation.distances import TIE, nearest
from diffgen.evaluation.divergences import COMPONENTS
from diffgen.evaluation.features import BATCH, CHUNK, View
from diffgen.evaluation.images import RegionSet, open_images
from diffgen.evaluation.memorization import CELLS, Partition, authentic
from diffgen.evaluation.precision_recall import K, precision_recall
from diffgen.evaluation.tasks import Workers

SAMPLES, NAIVE, DIMENSIONS = 10_240, 2_048, 1_280
SECONDS, MEMORY_MB, EFFICIENCY = 60, 2_000, 0.9  # goals
A_SOURCE = 32  # samples: crops of a slide
COPIES = 100  # one synthetic sample in so many is a copy
BACKBONE, SIDE = "efficientnet-lite0", 128
CHUNKS = 2  # a turn; the first is not timed

Sets = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""Training, held-out, synthetic: (N, d)."""


def sets(samples: int, dimensions: int, seed: int = 0) -> Sets:
    rng, inner = np.random.default_rng(seed), min(64, dimensions)
    turn = rng.standard_normal((inner, dimensions), np.float32) / np.float32(inner**0.5)

    def drawn(spread: float) -> NDArray[np.float32]:
        wide = np.float32(spread) * rng.standard_normal((samples, inner), np.float32) @ turn
        return wide + np.float32(0.1) * rng.standard_normal((samples, dimensions), np.float32)

    training, held_out, synthetic = drawn(1), drawn(1), drawn(0.95)
    synthetic[::COPIES] = training[::COPIES]
    return training, held_out, synthetic


def figures(given: Sets, count: int = RESAMPLES) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Figures of the evaluation's own functions, and of each the seconds on the wall and of all cores."""
    training, held_out, synthetic = given
    sources = np.arange(len(training)) // A_SOURCE
    seconds = dict[str, list[float]]()

    def timed(name: str, call: Callable[[], Any]) -> Any:
        began = time.perf_counter(), time.process_time()
        found = call()
        seconds[name] = [time.perf_counter() - began[0], time.process_time() - began[1]]
        return found

    balls = timed("IP and IR", lambda: precision_recall(training, synthetic))
    own, of_synthetic = timed(
        "A", lambda: (nearest(training, training, exclude_self=True), nearest(synthetic, training))
    )
    cells = partial(Partition, training, held_out, sources)
    copying = timed("C_T", lambda: cells().data_copying(synthetic, sources, count=count))
    return {
        "precision": balls.precise,
        "recall": balls.recalled,
        "density": balls.density,
        "coverage": balls.covered,
        "authentic": authentic(of_synthetic, own),
        "nearest": of_synthetic.distances[:, 0],
        "radius": own.distances[:, 0],
        "c_t": copying.c_t.value,
    }, seconds


def naive(given: Sets) -> dict[str, Any]:
    """The same figures by whole matrices."""
    from scipy.spatial.distance import cdist
    from scipy.stats import mannwhitneyu, rankdata, tiecorrect
    from sklearn.cluster import KMeans

    training, held_out, synthetic = (one.astype(np.float64) for one in given)
    between = cdist(synthetic, training)
    inside = [cdist(one, one) for one in (training, synthetic)]
    for one in inside:
        np.fill_diagonal(one, np.inf)
    radii = [np.sort(one, axis=1)[:, K - 1] * (1 + TIE) for one in inside]
    of_training, of_synthetic = between <= radii[0], between <= radii[1][:, None]
    radius, distance = inside[0].min(axis=1), between.min(axis=1)
    mean = training.mean(axis=0)
    basis = np.linalg.svd(training - mean, full_matrices=False)[2][:COMPONENTS].T
    flat = [(one - mean) @ basis for one in (training, held_out, synthetic)]
    cells = KMeans(CELLS, n_init=10, random_state=0).fit(flat[0])
    near = [cdist(one, flat[0]).min(axis=1) for one in flat[1:]]
    where = [cells.predict(one) for one in flat[1:]]
    total = weight = 0.0
    for cell in range(CELLS):
        real, drawn = (one[labels == cell] for one, labels in zip(near, where, strict=True))
        n, m = len(real), len(drawn)
        ties = tiecorrect(rankdata(np.concatenate([real, drawn])))
        u = mannwhitneyu(drawn, real).statistic
        total += n * (u - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12 * ties)
        weight += n
    return {
        "precision": of_training.any(axis=1),
        "recall": of_synthetic.any(axis=0),
        "density": of_training.sum(axis=1) / K,
        "coverage": of_training.any(axis=0),
        "authentic": distance > radius[between.argmin(axis=1)] * (1 + TIE),
        "nearest": distance,
        "radius": radius,
        "c_t": total / weight,
    }


def largest_difference(given: Sets) -> float:
    """Between any number of the two forms: of samples, of which the figures are means, and C_T."""
    found, wanted = figures(given, count=2)[0], naive(given)
    return max(float(np.abs(np.asarray(found[key], float) - wanted[key]).max()) for key in wanted)


def in_process(samples: int, dimensions: int, threads: int, pipe: Connection) -> None:
    """Figures of fresh features, in a process of its own; the pipe gets seconds by part and MB."""
    torch.set_num_threads(threads)
    given = sets(samples, dimensions)
    found, seconds = figures(given)
    means = {key: float(np.mean(value)) for key, value in found.items()}
    pipe.send({"seconds": seconds, "peak_memory_mb": most_mb(), "figures": means})


def distances(
    samples: int, dimensions: int, naive_samples: int, repeats: int, threads: int
) -> dict[str, Any]:
    runs = []
    for _ in range(repeats):
        with child({"OMP_NUM_THREADS": str(threads)}, in_process, samples, dimensions, threads) as pipe:
            runs.append(pipe.recv())
    totals, of_cores = ([sum(part[k] for part in run["seconds"].values()) for run in runs] for k in (0, 1))
    parts = {key: statistics.median(run["seconds"][key][0] for run in runs) for key in runs[0]["seconds"]}
    return {
        "seconds": statistics.median(totals),
        "cpu_seconds": statistics.median(of_cores),
        "peak_memory_mb": max(run["peak_memory_mb"] for run in runs),
        "max_difference_from_naive": largest_difference(sets(naive_samples, dimensions)),
        "distances": {
            "samples": samples, "dimensions": dimensions, "naive_samples": naive_samples, "threads": threads,
            "seconds_of_runs": totals, "cpu_seconds_of_runs": of_cores,
            "seconds_by_part": parts, "figures": runs[0]["figures"],
        },
    }  # fmt: skip


@contextmanager
def child(environment: dict[str, str], target: Callable[..., None], *arguments: Any) -> Iterator[Connection]:
    """A fresh process, which has the other end of the pipe as its last argument."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=target, args=(*arguments, there), daemon=True)
    with mock.patch.dict(os.environ, environment):
        process.start()
    there.close()
    try:
        yield here
    finally:
        here.close()
        process.join(10)
        process.kill()


def noise(folder: Path, count: int, side: int) -> Path:
    """Images that no codec can shrink: the most that there is to read."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for k in range(count):
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(folder / f"{k:06d}.png")
    return folder


def some(where: str, side: int, count: int) -> RegionSet:
    """`count` crops, again from the first where there are fewer."""
    images = open_images(where)
    regions = images.regions(side)
    if not regions:
        raise SystemExit(f"{where}: no image is as large as {side} px")
    return RegionSet(images, tuple(regions[k % len(regions)] for k in range(count)))


def rate(crops: RegionSet, cache: Path, chunk: int, inline: bool) -> float:
    """Regions per second of the command, from its first chunk's file to its last."""
    job = features.FeatureJob(crops, View(), backbones.load(BACKBONE), cache, chunk)
    features.extract([job], Workers(1, False, inline, Console(quiet=True)))
    ends = sorted(job.path(chunk).stat().st_mtime for chunk in job.chunks)
    return (len(crops) - chunk) / (ends[-1] - ends[0])


def bare(where: str, side: int, count: int, chunk: int, pipe: Connection) -> None:
    """The network alone, again and again: crops in memory, regions per second down the pipe."""
    torch.set_num_threads(1)
    network = backbones.load(BACKBONE)
    pictures = np.stack(list(some(where, side, min(count, chunk)).pictures()))
    batches = [pictures[start : start + BATCH] for start in range(0, len(pictures), BATCH)]
    network(batches[0])
    while pipe.recv():
        began, done = time.perf_counter(), 0
        while done < count - chunk:
            for batch in batches:
                network(batch)
                done += len(batch)
        pipe.send(done / (time.perf_counter() - began))


def inline(where: str, side: int, count: int, chunk: int, pipe: Connection) -> None:
    """The command without Ray; regions per second down the pipe."""
    crops = some(where, side, count)
    while pipe.recv():
        with tempfile.TemporaryDirectory() as cache:
            pipe.send(rate(crops, Path(cache), chunk, inline=True))


def extraction(where: str, side: int, count: int, chunk: int, turns: int) -> dict[str, Any]:
    """Turns: bare, inline, bare, inline, …, bare; then the same with the pool."""
    connect(num_cpus=1)
    crops = some(where, side, count)

    def asked(pipe: Connection) -> float:
        pipe.send(True)
        return float(pipe.recv())

    def pooled() -> float:
        with tempfile.TemporaryDirectory() as cache:
            return rate(crops, Path(cache), chunk, inline=False)

    with (
        child({**MALLOC_ENV, "OMP_NUM_THREADS": "1"}, bare, where, side, count, chunk) as network,
        child({"OMP_NUM_THREADS": "1"}, inline, where, side, count, chunk) as command,
    ):
        forms: dict[str, Callable[[], float]] = {"inline": lambda: asked(command), "pool": pooled}
        found = {}
        for name, form in forms.items():
            alone, rates = [asked(network)], []
            for _ in range(turns):
                rates.append(form())
                alone.append(asked(network))
            found[name] = ratios(alone, rates)
        for pipe in (network, command):
            pipe.send(False)
    return {
        "extraction_efficiency": {name: one["ratio"] for name, one in found.items()},
        "extraction": {"regions": count, "side": side, **found},
    }


def shown(found: dict[str, Any]) -> Table:
    table = Table("", "measured", "goal", title="evaluation")
    if "seconds" in found:
        part = found["distances"]
        size = f"{part['samples']:,} against {part['samples']:,} of {part['dimensions']:,}"
        table.add_row(f"{size}, {part['threads']} threads: s", f"{found['seconds']:.1f}", f"< {SECONDS}")
        for name, seconds in part["seconds_by_part"].items():
            table.add_row(f"  {name}", f"{seconds:.1f}", "")
        table.add_row("  of all cores together", f"{found['cpu_seconds']:.1f}", "")
        table.add_row("peak memory, MB", f"{found['peak_memory_mb']:,.0f}", f"< {MEMORY_MB:,}")
        named = f"largest difference from the naive form ({part['naive_samples']:,} samples)"
        table.add_row(named, f"{found['max_difference_from_naive']:.1g}", "")
    for name, ratio in found.get("extraction_efficiency", {}).items():
        rates = found["extraction"][name]
        alone, command = (statistics.median(rates[key]) for key in ("bare", "command"))
        table.add_row(
            f"extraction, {name}: {command:.1f} ÷ {alone:.1f} regions/s", f"{ratio:.3f}", f"≥ {EFFICIENCY}"
        )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", nargs="?", metavar="DATA")
    parser.add_argument("--only", choices=("distances", "extraction"), action="append", help="this part")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write or update FILE")
    parser.add_argument("--quick", action="store_true", help="see that it works")
    parser.add_argument("--repeats", type=int, default=3, help="of the first part")
    parser.add_argument("--threads", type=int, default=2, help="of the first part")
    parser.add_argument("--turns", type=int, default=5, help="of the second part")
    given = parser.parse_args(arguments)
    console, chosen = Console(), given.only or ("distances", "extraction")
    console.width = max(console.width, 140)  # a table is not cut where it is written to a file
    result = json.loads(given.json.read_text()) if given.json and given.json.exists() else {}
    result["machine"] = {"machine": platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__}
    if "distances" in chosen:
        sizes = (1_024, 256, 256) if given.quick else (SAMPLES, DIMENSIONS, NAIVE)
        result |= distances(*sizes, repeats=given.repeats, threads=given.threads)
    if "extraction" in chosen:
        chunk = 2 * BATCH if given.quick else CHUNK
        count = chunk + BATCH if given.quick else CHUNKS * chunk
        with tempfile.TemporaryDirectory() as temporary:
            where = given.data or str(noise(Path(temporary) / "noise", count, SIDE))
            result |= extraction(where, SIDE, count, chunk, given.turns)
    console.print(shown(result))
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
