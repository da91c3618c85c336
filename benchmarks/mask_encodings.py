"""The mask model's two encodings, label bits and grey latents, trained alike on real tissue label maps.

    python benchmarks/mask_encodings.py ../shared/data/bcss_masks --work /tmp/masks \\
        --json masks.json --picture masks.png

prepares the BCSS label maps (0.25 µm/px, a folder with gtruth_codes.tsv), trains both through `diffgen
train mask`, draws maps with the averaged weights, and prints one table. A run that was broken off goes
on with the same command; more `--steps` are new runs. About 12 minutes of one core.

Setting: five classes of the 22 codes; the paper's two scales, regions of 512² and 2048² pixels of
0.25 µm, here as 64 × 64 mask pixels of 2 and 8 µm (the paper has 128 × 128), so that a CPU is enough.
Latents are 4 × 16 × 16, as the paper's, from a linear autoencoder of factor 4 in place of Stable
Diffusion's of factor 8. Both are trained at equal cost: as many FLOPs, steps of the same batch.

real          as many real maps, drawn at random, against the others: what a perfect generator would get
real, cleaned all real maps with regions below `sampling.min_region_um2` cleaned away, as all drawn ones are
real, coded   all real maps to latents and back, then cleaned: what the autoencoder alone costs
shares        |generated − real| of the share of a class, unknown left out: largest and mean
regions       4-connected regions a mm², generated over real: median over classes; then the median |ratio − 1|
boundary      the same of the boundary's length
unknown       share of unknown pixels
seconds       of the training steps, by the clock
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.flop_counter import FlopCounterMode

from diffgen import config
from diffgen.data.stream import Patches
from diffgen.evaluation.label_maps import Comparison, ceiling, compare
from diffgen.labels import LabelMap, Labels
from diffgen.models import bundle
from diffgen.models.mask_codec import num_bits
from diffgen.sampling import masks
from diffgen.sampling.canvas import Canvas
from diffgen.sampling.covers import Covering, Rule
from diffgen.sampling.denoise import mask_denoiser, run
from diffgen.sampling.seeds import Purpose
from diffgen.sampling.solvers import Solver

GROUPS = {
    "unknown": ("outside_roi", "exclude", "undetermined"),
    "tumor": ("tumor", "dcis", "angioinvasion"),
    "stroma": ("stroma",),
    "lymphocytic_infiltrate": ("lymphocytic_infiltrate", "plasma_cells", "other_immune_infiltrate"),
    "necrosis": ("necrosis_or_debris",),
    "other": (),  # all the rest
}
LABELS = Labels(tuple(GROUPS))
SIDE, FACTOR, CHANNELS = 64, 4, 4
STRIDES = {2.0: 0.5, 8.0: 0.125}
"""µm of a mask pixel → step between patches: about 1,300 patches each."""
MODELS: dict[str, dict[str, Any]] = {
    "bits": {"patch": SIDE, "width": 16, "multipliers": [1, 2, 4, 4], "attention": [8]},
    "latents": {
        "patch": SIDE // FACTOR, "width": 32, "multipliers": [1, 2, 4], "attention": [8],
        "factor": FACTOR, "channels": CHANNELS,
    },
}  # fmt: skip
BATCH = 16
ROWS, COLUMNS = 4, 4  # of the maps that one part of the picture shows
DRAWN_AT_ONCE = 32
CEILINGS = 8
"""Draws of real against real that the first row is the mean of."""


def groups(codes: Path) -> dict[int, int]:
    """Code of gtruth_codes.tsv → class id."""
    with codes.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    by_name = {name: i for i, names in enumerate(GROUPS.values()) for name in names}
    other = LABELS.classes.index("other")
    return {int(row["GT_code"]): by_name.get(row["label"], other) for row in rows}


def tree(um: float, encoding: str, steps: int) -> dict[str, Any]:
    """The settings of one run."""
    model = {"pixel_um": um, "encoding": encoding, "blocks": 1, "heads": 4, **MODELS[encoding]}
    part = {
        "steps": steps, "batch": BATCH, "lr": 2e-3, "p_conditional": 0.8,
        "checkpoint_every": max(1, steps // 5), "sample_every": steps,
    }  # fmt: skip
    return {
        "mask_model": model,
        "diffusion": {"prediction": "v_prediction"},
        "training": {"threads": 1, "mask": part},
    }


def forward_flops(encoding: str) -> int:
    """FLOPs of one patch's forward through the mask U-Net."""
    settings = config.validate(tree(8.0, encoding, 1))
    channels = CHANNELS if encoding == "latents" else num_bits(len(LABELS))
    unet = bundle.new_mask_unet(settings, LABELS, channels)
    side, one = settings.mask_model.patch, torch.zeros(1, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        unet(torch.zeros(1, channels, side, side), one, one)
    return int(counter.get_total_flops())


def equal_steps(steps: int) -> dict[str, int]:
    """Steps of each encoding that cost as much as `steps` of bits; batches are alike."""
    flops = {encoding: forward_flops(encoding) for encoding in MODELS}
    return {encoding: round(steps * flops["bits"] / cost) for encoding, cost in flops.items()}


# --- work folder ----------------------------------------------------------------------------------------


def diffgen(work: Path, *arguments: str) -> None:
    """One `diffgen` command in the work folder."""
    environment = {"OMP_NUM_THREADS": "1"} | os.environ
    subprocess.run([sys.executable, "-m", "diffgen.cli", *arguments], check=True, cwd=work, env=environment)


def prepared(source: Path, work: Path, um: float) -> Path:
    """Prepared label maps with mask pixels of `um` µm."""
    folder = work / f"data-{um:g}um"
    if not (folder / "statistics.json").exists():
        classes = dict(enumerate(GROUPS))
        del classes[0]
        prepare = {
            "labels": "maps", "assume_mpp": 0.25, "classes": classes,
            "mask_values": groups(source / "gtruth_codes.tsv"),
            "mask_stride": STRIDES.get(um, 0.25), "min_tissue": 0.5, "test_share": 0.0,
        }  # fmt: skip
        written = _write(work / f"data-{um:g}um.yaml", tree(um, "bits", 1) | {"prepare": prepare})
        diffgen(work, "prepare", str(source.absolute()), "--config", str(written), "--out", str(folder))
    return folder


def trained(data: Path, work: Path, um: float, encoding: str, steps: int) -> Path:
    """The bundle of a run of `diffgen train mask`, and the run's folder beside it."""
    name = f"{um:g}um-{encoding}-{steps}"
    folder = work / "runs" / name
    if not (folder / "bundle" / bundle.INDEX).exists():
        written = _write(work / f"{name}.yaml", tree(um, encoding, steps))
        diffgen(work, "train", "mask", "--data", str(data), "--run", name, "--config", str(written))
    return folder


def _write(path: Path, settings: dict[str, Any]) -> Path:
    path.write_text(json.dumps(settings, indent=1), encoding="utf-8")  # YAML reads JSON
    return path


def seconds(folder: Path, steps: int) -> float:
    """Time of all training steps, from the times of the log's entries."""
    log = EventAccumulator(str(folder / "tensorboard" / "mask"))
    log.Reload()
    entries = log.Scalars("train/loss")
    paces = [(b.wall_time - a.wall_time) / (b.step - a.step) for a, b in pairwise(entries)]
    return float(np.median(paces)) * steps if paces else float("nan")


# --- maps -----------------------------------------------------------------------------------------------


def draw(made: bundle.Bundle, settings: config.Settings, n: int, seed: int = 0) -> list[LabelMap]:
    """Label maps 0 … n − 1 of one patch each, contexts by turns, cleaned as synthesis does."""
    return [clean(m, settings) for m in _drawn(made, settings, n, seed)]


def _drawn(made: bundle.Bundle, settings: config.Settings, n: int, seed: int) -> Iterator[LabelMap]:
    sampling, side, codec = settings.sampling, made.facts.mask_patch, made.mask_codec
    purposes = Purpose.MASK_NOISE, Purpose.MASK_STEP_NOISE
    denoiser = mask_denoiser(made.mask_unet)
    for first in range(0, n, DRAWN_AT_ONCE):
        canvases = []
        for k in range(first, min(n, first + DRAWN_AT_ONCE)):
            context = np.full((side, side), 1 + k % len(made.labels.contexts), np.uint8)
            solver = Solver(
                sampling.solver, made.schedule, sampling.mask_steps, sampling.eta, sampling.spacing
            )
            one = Covering(
                side, side, ((None, side),), tuple(solver.log_snr), Rule("aligned", 0.0, 0.0), (seed, k),
                Purpose.MASK_COVER,
            )  # fmt: skip
            canvases.append(Canvas(codec.channels, context, one, solver, purposes))
        for canvas in run(canvases, denoiser, sampling.mask_guidance, "per_label", sampling.micro_batch):
            yield codec.decode(canvas)


def clean(label_map: LabelMap, settings: config.Settings) -> LabelMap:
    """A label map without regions below `sampling.min_region_um2`."""
    return masks.clean(label_map, round(settings.sampling.min_region_um2 / settings.mask_model.pixel_um**2))


# --- the table ------------------------------------------------------------------------------------------


def row(name: str, found: Sequence[Comparison], **more: Any) -> dict[str, Any]:
    """Means over comparisons of what the table shows."""

    def mean(figure: Any) -> float:
        return float(np.mean([figure(one) for one in found]))

    return {
        "maps": name,
        "largest_share_error": mean(lambda c: c.largest_share_error),
        "mean_share_error": mean(lambda c: c.mean_share_error),
        "region_ratio": mean(lambda c: np.nanmedian(c.region_ratio)),
        "region_error": mean(lambda c: c.region_error),
        "boundary_ratio": mean(lambda c: np.nanmedian(c.boundary_ratio)),
        "boundary_error": mean(lambda c: c.boundary_error),
        "unknown": mean(lambda c: c.generated.unknown),
        "details": found[0].to_json(),
        **more,
    }


def judge(
    source: Path, work: Path, um: float, steps: dict[str, int], n: int
) -> tuple[list[dict[str, Any]], dict[str, list[LabelMap]]]:
    """Rows of one scale, and some maps of each kind."""
    data = prepared(source, work, um)
    patches = Patches(data, "mask")
    real = [patches.label_map(k) for k in range(len(patches))]
    classes, rng = len(LABELS), np.random.default_rng(0)
    number = min(n, len(real) // 2)
    halves = [ceiling(real, number, classes, um, rng) for _ in range(CEILINGS)]
    settings = config.validate(tree(um, "bits", 1))
    cleaned = compare(real, [clean(m, settings) for m in real], classes, um)
    rows = [row("real", halves), row("real, cleaned", [cleaned])]
    shown = {"real": [real[k] for k in rng.permutation(len(real))[: ROWS * COLUMNS]]}
    for encoding in MODELS:
        folder = trained(data, work, um, encoding, steps[encoding])
        made = bundle.load(folder / "bundle")
        made.to("cpu")
        settings = config.validate(config.read_yaml(folder / "bundle" / "settings.yaml"))
        if encoding == "latents":
            coded = [clean(made.mask_codec.decode(made.mask_codec.encode(m)), settings) for m in real]
            rows.append(row("real, coded", [compare(real, coded, classes, um)]))
        drawn = draw(made, settings, n)
        assert made.mask_unet is not None
        more = {
            "seconds": seconds(folder, steps[encoding]),
            "steps": steps[encoding],
            "parameters": sum(p.numel() for p in made.mask_unet.parameters()),
        }
        rows.append(row(encoding, [compare(real, drawn, classes, um)], **more))
        shown[encoding] = drawn[: ROWS * COLUMNS]
    return rows, shown


def tabulate(rows: Sequence[dict[str, Any]], title: str) -> Table:
    table = Table("maps", title=title, title_justify="left")
    for name in ("shares: largest", "mean", "regions", "|r−1|", "boundary", "|r−1|", "unknown", "seconds"):
        table.add_column(name, justify="right")
    for r in rows:
        table.add_row(
            r["maps"], f"{r['largest_share_error']:.1%}", f"{r['mean_share_error']:.1%}",
            f"{r['region_ratio']:.2f}", f"{r['region_error']:.2f}", f"{r['boundary_ratio']:.2f}",
            f"{r['boundary_error']:.2f}", f"{r['unknown']:.1%}",
            f"{r['seconds']:.0f}" if "seconds" in r else "",
        )  # fmt: skip
    return table


def picture(path: Path, shown: dict[float, dict[str, list[LabelMap]]]) -> None:
    """Maps of all kinds side by side, a row a scale."""
    figure = Figure(figsize=(4.2 * 3, 4.4 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(shown), 3, squeeze=False)
    for line, (um, kinds) in zip(grid, shown.items(), strict=True):
        for axes, (name, maps) in zip(line, kinds.items(), strict=True):
            axes.imshow(mosaic(maps), interpolation="nearest")
            axes.set_title(f"{name}, {um:g} µm a mask pixel ({SIDE * um:g} µm a map)", fontsize=9)
            axes.set_axis_off()
    figure.savefig(path, dpi=110)


def mosaic(maps: Sequence[LabelMap]) -> np.ndarray:
    """Painted maps in rows, with white lines between them."""
    tiles = [np.pad(LABELS.paint(m), ((0, 2), (0, 2), (0, 0)), constant_values=255) for m in maps]
    lines = [np.concatenate(tiles[i : i + COLUMNS], axis=1) for i in range(0, len(tiles), COLUMNS)]
    return np.concatenate([line for line in lines if line.shape == lines[0].shape])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("masks", type=Path, help="folder of the BCSS label maps")
    parser.add_argument("--work", type=Path, required=True, help="folder for data and runs")
    parser.add_argument("--steps", type=int, default=120, help="training steps of the bits")
    parser.add_argument("--maps", type=int, default=128, help="maps drawn of each model")
    parser.add_argument("--um", type=float, nargs="+", default=[2.0, 8.0], help="µm of a mask pixel")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    work, console = arguments.work.absolute(), Console()
    steps = equal_steps(arguments.steps)
    results, shown = {}, {}
    for um in arguments.um:  # what there is so far is written after each scale
        results[f"{um:g}um"], shown[um] = judge(arguments.masks, work, um, steps, arguments.maps)
        title = f"{SIDE}² mask pixels of {um:g} µm; steps: " + ", ".join(f"{e} {n}" for e, n in steps.items())
        console.print(tabulate(results[f"{um:g}um"], title))
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=2) + "\n")
        if arguments.picture:
            picture(arguments.picture, shown)


if __name__ == "__main__":
    main()
