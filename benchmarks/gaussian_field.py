"""Sampling rules judged on a Gaussian field: nothing is trained, and the right answer is known.

    python benchmarks/gaussian_field.py                      # the table, about five minutes on a core
    python benchmarks/gaussian_field.py --only default --json default.json
    python benchmarks/gaussian_field.py --sizes              # canvases of 2 to 16 patches

A Gaussian field of known covariance has an exact denoiser: for a patch, ε comes from the Wiener filter of
the patch's own covariance. What is left of error is that of covers, owners and solver, which are the
engine's own (`diffgen.sampling`). The channels of one canvas are independent fields under one cover.

Setting: 64² canvas, patches of 16², covariance 0.9·exp(−d/8) + 0.1·[d = 0], squared-cosine schedule of
1,000 steps; wide patches of 32² below log-SNR −2 count as four forwards. A rule's two overlaps are those
below log-SNR −2 and above.

variance      of all pixels; 1 is right
seam          squared jump across the borders of the last step's owners, over elsewhere; 1 is right
grid          the same across multiples of the patch side
error         largest |E[y_i·y_(i+l)] − true| over nine lags from 1 to 28 and both axes, no mean removed
÷ variance    the same with E divided by the variance
s.e.          standard error of `error`, by jackknife over covers: the canvases of a cover share its faults
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.canvases import owners_borders
from diffgen.evaluation.structure import jumps, lines
from diffgen.sampling import covers
from diffgen.sampling.baselines import method
from diffgen.sampling.covers import CoverSchedule, Sides
from diffgen.sampling.seeds import Purpose
from diffgen.sampling.solvers import Solver, noise_schedule
from diffgen.schema import Sampling

SIDE, PATCH = 64, 16
LAGS = (1, 2, 4, 8, 12, 15, 20, 24, 28)
BASE: Sides = ((None, PATCH),)
WIDE: Sides = ((-2.0, 2 * PATCH), (None, PATCH))
SCHEDULE = noise_schedule(1000, "squaredcos_cap_v2", "epsilon")
ALPHAS = SCHEDULE.alphas_cumprod.numpy().astype(np.float64)
DEFAULT = Sampling()


@dataclass(frozen=True)
class Row:
    preset: str
    rule: covers.RuleName
    solver: str
    steps: int
    overlap: float = DEFAULT.overlap
    noisy: float = DEFAULT.noisy_overlap
    sides: Sides = BASE
    spacing: Any = "log-snr"
    covers: int = 64
    channels: int = 64


ROWS = [
    Row("exact", "aligned", "", 0, channels=256),
    Row("paper", "random", "ddim", 250, covers=32, channels=32),
    Row("fixed", DEFAULT.cover, DEFAULT.solver, DEFAULT.steps_for(1), channels=128),
    Row("default", DEFAULT.cover, DEFAULT.solver, DEFAULT.steps_for(2), sides=WIDE, channels=128),
    Row("fast", DEFAULT.cover, DEFAULT.solver, 12, sides=WIDE, noisy=0.25, channels=256),
    Row("", "random", "dpmsolver++", 20),
    Row("", "jittered", "dpmsolver++", 16, spacing="time"),
    Row("", "jittered", "dpmsolver++", 20, noisy=0.125),
    Row("", "jittered", "dpmsolver++", 20, overlap=0.25, noisy=0.25),
    Row("", "aligned", "dpmsolver++", 20),
    Row("", "multidiffusion", "dpmsolver++", 20, overlap=0.5, noisy=0.5),
    Row("", "diffcollage", "dpmsolver++", 20),
    Row("", "outpaint", "dpmsolver++", 20, covers=16, channels=128),
    Row("", "random", "dpmsolver++", 15, sides=WIDE),
    Row("", "jittered", "dpmsolver++", 20, sides=WIDE),
    Row("", "jittered", "dpmsolver++", 15, sides=WIDE, noisy=0.125),
    Row("", "jittered", "dpmsolver++", 12, sides=WIDE, noisy=0.125),
    Row("", "jittered", "dpmsolver++", 12, sides=WIDE, noisy=0.5),
    Row("", "jittered", "dpmsolver++", 11, sides=WIDE),
    Row("", "jittered", "unipc", 13, sides=WIDE),
    Row("", "jittered", "unipc", 11, sides=WIDE),
    Row("", "jittered", "unipc", 12, sides=WIDE, noisy=0.25),
    Row("", "jittered", "unipc", 12, sides=WIDE, noisy=0.125),
    Row("", "jittered", "sde-dpmsolver++", 13, sides=WIDE),
    Row("", "jittered", "euler", 13, sides=WIDE),
    Row("", "jittered", "ddim", 20, sides=WIDE),
]


def covariance(height: int, width: int) -> NDArray[np.float64]:
    """(h·w, h·w): covariance of the pixels of a patch."""
    y, x = np.divmod(np.arange(height * width), width)
    distance = np.hypot(y[:, None] - y[None, :], x[:, None] - x[None, :])
    return 0.9 * np.exp(-distance / 8) + 0.1 * (distance == 0)


@cache
def _spectrum(height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values, vectors = np.linalg.eigh(covariance(height, width))
    return values, vectors


@cache
def denoiser(height: int, width: int, timestep: int) -> NDArray[np.float32]:
    """(h·w, h·w): z_t → E[ε | z_t] = σ (γ² Σ + σ²)⁻¹ z_t."""
    values, vectors = _spectrum(height, width)
    alpha = ALPHAS[timestep]
    filtered = (vectors * (np.sqrt(1 - alpha) / (alpha * values + 1 - alpha))) @ vectors.T
    return filtered.astype(np.float32)


def exact(height: int, width: int, count: int, seed: int) -> NDArray[np.float32]:
    """Samples (count, H, W) of the field itself, by its spectrum on a torus twice as large."""
    rows, columns = 2 * height, 2 * width
    y = np.minimum(np.arange(rows), rows - np.arange(rows))
    x = np.minimum(np.arange(columns), columns - np.arange(columns))
    distance = np.hypot(y[:, None], x[None, :])
    power = np.fft.fft2(0.9 * np.exp(-distance / 8) + 0.1 * (distance == 0)).real.clip(0)
    white = np.random.default_rng(seed).standard_normal((count, rows, columns))
    field = np.fft.ifft2(np.fft.fft2(white) * np.sqrt(power)).real
    return field[:, :height, :width].astype(np.float32)


def sample(row: Row, height: int, width: int, number: int) -> tuple[NDArray[np.float32], CoverSchedule, int]:
    """Fields (C, H, W) under cover `number`, its covers, and forwards of the base patch."""
    solver = Solver(row.solver, dict(SCHEDULE.config), row.steps, spacing=row.spacing)
    of = method(row.rule)
    rule = of.rule(row.rule, row.overlap, row.noisy)
    cover_schedule = of.schedule(
        height, width, row.sides, tuple(solver.log_snr), rule, (0, number), Purpose.IMAGE_COVER
    )
    blank = np.zeros((height, width), np.uint8)
    canvas = of.canvas(
        row.channels, blank, cover_schedule, solver, (Purpose.IMAGE_NOISE, Purpose.IMAGE_STEP_NOISE)
    )
    forwards = 0
    while not canvas.finished:
        for k in range(len(canvas.cover)):
            patch = canvas.patch_of(k)
            z = patch.latents.reshape(row.channels, -1)
            estimate = (z @ denoiser(*patch.labels.shape, patch.timestep)).reshape(patch.latents.shape)
            canvas.write(k, estimate[:, patch.owned])
            forwards += cover_schedule.cost(canvas.cover.shape(k))
        canvas.advance()
    return canvas.latents, cover_schedule, forwards


def moments(fields: NDArray[np.float32], cover_schedule: CoverSchedule | None) -> NDArray[np.float64]:
    """Variance, jumps at borders and elsewhere, products at each lag and axis: what figures are made of."""
    y = fields.astype(np.float64)
    _, height, width = y.shape
    products = [
        (y[:, lag:] * y[:, :-lag]).mean() if axis == 0 else (y[:, :, lag:] * y[:, :, :-lag]).mean()
        for lag in LAGS
        for axis in (0, 1)
        if lag < (height, width)[axis]
    ]
    grid = lines(height, width, PATCH)
    owner = None if cover_schedule is None else cover_schedule.at(cover_schedule.steps - 1).owner
    borders = grid if owner is None else owners_borders(owner)
    return np.concatenate([[(y**2).mean()], jumps(y, borders), jumps(y, grid), products])


def figures(mean: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Variance, seam, grid, error, error ÷ variance, of moments that are averaged over covers."""
    true = np.array([0.9 * np.exp(-lag / 8) for lag in LAGS for side in (height, width) if lag < side])
    variance, jumps, products = mean[0], mean[1:9], mean[9:]
    level = jumps[0::2] / np.maximum(jumps[1::2], 1)
    error, scaled = np.abs(products - true).max(), np.abs(products / variance - true).max()
    seam, grid = (level[k] / level[k + 1] if jumps[2 * k + 1] else 1.0 for k in (0, 2))
    return np.array([variance, seam, grid, error, scaled])


def judge(row: Row, height: int = SIDE, width: int = SIDE) -> dict[str, Any]:
    """One row of the table; standard errors by jackknife over covers."""
    taken, forwards = [], 0
    for number in range(row.covers):
        if row.preset == "exact":
            taken.append(moments(exact(height, width, row.channels, number), None))
            continue
        fields, cover_schedule, cost = sample(row, height, width, number)
        taken.append(moments(fields, cover_schedule))
        forwards += cost
    values, count = np.stack(taken), row.covers
    whole = figures(values.mean(axis=0), height, width)
    without = [(values.sum(axis=0) - one) / max(1, count - 1) for one in values]
    left = np.stack([figures(one, height, width) for one in without])
    spread = np.sqrt((count - 1) / count * ((left - left.mean(axis=0)) ** 2).sum(axis=0))
    wide = " wide" if len(row.sides) > 1 else ""
    spaced = ", even in time" if row.spacing == "time" else ""
    overlap = (
        f" {row.noisy:g}/{row.overlap:g}" if row.rule in {"jittered", "multidiffusion", "outpaint"} else ""
    )
    return {
        "preset": row.preset,
        "rule": "exact samples" if row.preset == "exact" else f"{row.rule}{overlap}{wide}",
        "solver": f"{row.solver}{spaced}",
        "steps": row.steps,
        "size": f"{width}x{height}",
        "forwards": forwards / count,
        "variance": whole[0],
        "seam": whole[1],
        "seam_grid": whole[2],
        "correlation_error": whole[3],
        "correlation_error_normalised": whole[4],
        "standard_error": spread[3],
        "variance_standard_error": spread[0],
        "seam_standard_error": spread[1],
        "canvases": count * row.channels,
    }


def sizes(channels: int) -> Iterator[tuple[Row, int, int]]:
    """The default rule on canvases of 2 to 16 patches, square and not; larger ones average by themselves."""
    for across, down in ((2, 2), (4, 2), (4, 4), (8, 4), (8, 8), (16, 8), (16, 16)):
        count = max(2, channels * 16 // (across * down))
        yield (
            Row(
                "", DEFAULT.cover, DEFAULT.solver, DEFAULT.steps_for(2), sides=WIDE, covers=32, channels=count
            ),
            PATCH * down,
            PATCH * across,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON")
    parser.add_argument("--only", metavar="PRESET", help="exact, paper, fixed, default or fast")
    parser.add_argument("--sizes", action="store_true", help="the default rule on other canvases instead")
    parser.add_argument("--quick", action="store_true", help="a quarter of the covers, no row of the paper")
    given = parser.parse_args()
    console, rows = Console(), []
    console.width = max(console.width, 140)  # a table is not cut where it is written to a file
    work = [(row, SIDE, SIDE) for row in ROWS if given.only in {None, row.preset}]
    if given.sizes:
        work = list(sizes(32))
    if not work:
        parser.error(f"--only {given.only}: there are exact, paper, fixed, default, fast")
    table = Table("preset")
    for name in ("rule", "solver", "steps", "canvas"):
        table.add_column(name, no_wrap=True)
    for name in ("forwards", "variance", "seam", "grid", "error", "÷ variance", "s.e.", "canvases"):
        table.add_column(name, justify="right")
    with console.status("") as shown:
        for row, height, width in work:
            if given.quick and row.preset == "paper":
                continue
            count = row.covers // 4 if given.quick else row.covers
            shown.update(f"{row.preset} {row.rule} {row.solver} {row.steps}, {width}×{height}")
            done = judge(Row(**{**row.__dict__, "covers": count}), height, width)
            rows.append(done)
            keys = ("variance", "seam", "seam_grid", "correlation_error", "correlation_error_normalised")
            texts = [f"{done[key]:.3f}" for key in (*keys, "standard_error")]
            table.add_row(
                done["preset"], done["rule"], done["solver"], str(done["steps"] or ""), done["size"],
                f"{done['forwards']:.0f}", *texts, str(done["canvases"]),
            )  # fmt: skip
    console.print(table)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
