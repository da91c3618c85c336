"""The mask model's two encodings, label bits and grey latents, trained alike on real tissue label maps.

    python benchmarks/mask_encodings.py MASKS --work masks \\
        --json masks.json --picture masks.png

prepares the BCSS label maps (0.25 µm/px, a folder with gtruth_codes.tsv), trains both through `diffgen
train mask`, draws maps with the averaged weights, and prints one table. A run that was interrupted goes
on with the same command; more `--steps` are new runs. About 12 minutes of one core.

Setting: five classes of the 22 codes; the paper's two scales, regions of 512² and 2048² pixels of
0.25 µm, which are 128 and 512 µm. The paper has them as 128 × 128 mask pixels; here they are 32 × 32
(`--side`), so that minutes of a CPU are enough. Latents come from a linear autoencoder of factor 4 with
4 channels, in place of Stable Diffusion's of factor 8. Both are trained at equal cost: as many FLOPs, in
steps of the same batch.

real          as many real maps, drawn at random, against the others: what a perfect generator would get
real, cleaned all real maps with regions below `sampling.min_region_um2` cleaned away, as all drawn ones are
real, coded   all real maps to latents and back, then cleaned: what the autoencoder alone costs
shares        |generated − real| of the share of a class, unknown left out: largest and mean
regions       4-connected regions per mm², generated over real: median over classes; then median |ratio − 1|
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
from diffgen.data.stream import PatchTable
from diffgen.evaluation.bootstrap import as_json
from diffgen.evaluation.label_maps import Comparison, compare
from diffgen.labels import LabelMap, Labels
from diffgen.models import bundle
from diffgen.models.mask_codec import num_bits
from diffgen.sampling import masks
from diffgen.sampling.canvas import Canvas
from diffgen.sampling.covers import CoverRule, CoverSchedule
from diffgen.sampling.guidance import Guidance
from diffgen.sampling.loop import sample
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
SIDE, FACTOR, CHANNELS = 32, 4, 4
STEP_UM = 64.0
"""Step between the patches that are cut."""
MODELS: dict[str, dict[str, Any]] = {
    "bits": {"factor": 1, "width": 16, "multipliers": [1, 2, 4, 4]},
    "latents": {"factor": FACTOR, "channels": CHANNELS, "width": 64, "multipliers": [1, 2, 2]},
}
BATCH = 16
ROWS, COLUMNS = 4, 4  # of the maps that one part of the picture shows
DRAWN_AT_ONCE = 64
CEILINGS = 8
"""Draws of real against real that the first row is the mean of."""


def groups(codes: Path) -> dict[int, int]:
    """Code of gtruth_codes.tsv → class id."""
    with codes.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    by_name = {name: i for i, names in enumerate(GROUPS.values()) for name in names}
    other = LABELS.classes.index("other")
    return {int(row["GT_code"]): by_name.get(row["label"], other) for row in rows}


def tree(region: float, encoding: str, steps: int, side: int = SIDE) -> dict[str, Any]:
    """The settings of one run on regions of so many µm, as `side` mask pixels."""
    patch = side // MODELS[encoding]["factor"]
    model = {
        "pixel_um": region / side, "encoding": encoding, "patch": patch, "blocks": 1,
        "attention": [min(8, patch // 2)], **MODELS[encoding],
    }  # fmt: skip
    part = {
        "steps": steps, "batch": BATCH, "lr": 2e-3, "p_conditional": 0.8,
        "checkpoint_every": max(1, steps // 5), "sample_every": steps,
    }  # fmt: skip
    return {
        "mask_model": model,
        "diffusion": {"prediction": "v_prediction"},
        "threads": 1,
        "training": {"mask": part},
    }


def forward_flops(encoding: str, side: int = SIDE) -> int:
    """FLOPs of one patch's forward through the mask U-Net."""
    settings = config.validate(tree(512.0, encoding, 1, side))
    channels = CHANNELS if encoding == "latents" else num_bits(len(LABELS))
    unet = bundle.new_mask_unet(settings, LABELS, channels)
    patch, one = settings.mask_model.patch, torch.zeros(1, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        unet(torch.zeros(1, channels, patch, patch), one, one)
    return int(counter.get_total_flops())


def equal_steps(steps: int, side: int = SIDE) -> dict[str, int]:
    """Steps of each encoding that cost as much as `steps` of bits; batches are alike."""
    flops = {encoding: forward_flops(encoding, side) for encoding in MODELS}
    return {encoding: round(steps * flops["bits"] / cost) for encoding, cost in flops.items()}


# --- work folder ----------------------------------------------------------------------------------------


def diffgen(work: Path, *arguments: str) -> None:
    """One `diffgen` command in the work folder."""
    environment = {"OMP_NUM_THREADS": "1"} | os.environ
    subprocess.run([sys.executable, "-m", "diffgen", *arguments], check=True, cwd=work, env=environment)


def prepared(source: Path, work: Path, region: float, side: int) -> Path:
    """Prepared label maps of regions of so many µm."""
    name = f"data-{region:g}um-{side}"
    if not (work / name / "statistics.json").exists():
        classes = dict(enumerate(GROUPS))
        del classes[0]
        prepare = {
            "labels": "maps", "assume_mpp": 0.25, "classes": classes,
            "mask_values": groups(source / "gtruth_codes.tsv"),
            "mask_stride": STEP_UM / region, "min_tissue": 0.5, "test_share": 0.0,
        }  # fmt: skip
        written = _write(work / f"{name}.yaml", tree(region, "bits", 1, side) | {"prepare": prepare})
        diffgen(work, "prepare", str(source.absolute()), "--config", str(written), "--out", name)
    return work / name


def trained(data: Path, settings: dict[str, Any]) -> Path:
    """The folder of a run of `diffgen train mask`, beside its data."""
    encoding, steps = settings["mask_model"]["encoding"], settings["training"]["mask"]["steps"]
    name = f"{data.name.removeprefix('data-')}-{encoding}-{steps}"
    folder = data.parent / "runs" / name
    if not (folder / "bundle" / bundle.INDEX).exists():
        written = _write(data.parent / f"{name}.yaml", settings)
        diffgen(data.parent, "train", "mask", "--data", data.name, "--run", name, "--config", str(written))
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


def ceiling(
    real: Sequence[LabelMap], number: int, num_classes: int, pixel_um: float, rng: np.random.Generator
) -> Comparison:
    """What a perfect generator would get: `number` real maps, drawn at random, against the others.

    `ValueError` unless there are more maps than that.
    """
    if not 0 < number < len(real):
        raise ValueError(f"{number} of {len(real)} maps leave none to compare with")
    order = rng.permutation(len(real))
    drawn, others = ([real[i] for i in part] for part in (order[:number], order[number:]))
    return compare(others, drawn, num_classes, pixel_um)


# --- maps -----------------------------------------------------------------------------------------------


def draw(made: bundle.Bundle, settings: config.Settings, n: int, seed: int = 0) -> list[LabelMap]:
    """Label maps 0 … n − 1 of one patch each, contexts by turns, cleaned as synthesis does."""
    return [clean(m, settings) for m in _drawn(made, settings, n, seed)]


def _drawn(made: bundle.Bundle, settings: config.Settings, n: int, seed: int) -> Iterator[LabelMap]:
    sampling, side, codec = settings.sampling, made.facts.mask_patch, made.mask_codec
    purposes = Purpose.MASK_NOISE, Purpose.MASK_STEP_NOISE
    assert made.mask_unet is not None, "trained before"
    for first in range(0, n, DRAWN_AT_ONCE):
        canvases = []
        for k in range(first, min(n, first + DRAWN_AT_ONCE)):
            context = np.full((side, side), 1 + k % len(made.labels.contexts), np.uint8)
            solver = Solver(
                sampling.solver, made.schedule, sampling.mask_steps, sampling.eta, sampling.spacing
            )
            one = CoverSchedule(
                side, side, ((None, side),), tuple(solver.log_snr), CoverRule("aligned", 0.0, 0.0), (seed, k),
                Purpose.MASK_COVER,
            )  # fmt: skip
            canvases.append(Canvas(codec.channels, context, one, solver, purposes))
        for canvas in sample(
            canvases,
            made.mask_unet,
            Guidance(sampling.mask_guidance),
            "per_label",
            sampling.on(gpu=False).batch,
        ):
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
        "details": as_json(found[0]),
        **more,
    }


def judge(
    data: Path, region: float, side: int, steps: dict[str, int], n: int
) -> tuple[list[dict[str, Any]], dict[str, list[LabelMap]]]:
    """Rows of one scale, and some maps of each kind."""
    um = region / side
    patches = PatchTable(data, "mask")
    real = [patches.label_map(k) for k in range(len(patches))]
    classes, rng = len(LABELS), np.random.default_rng(0)
    number = min(n, len(real) // 2)
    halves = [ceiling(real, number, classes, um, rng) for _ in range(CEILINGS)]
    settings = config.validate(tree(region, "bits", 1, side))
    cleaned = compare(real, [clean(m, settings) for m in real], classes, um)
    rows = [row("real", halves), row("real, cleaned", [cleaned])]
    shown = {"real": [real[k] for k in rng.permutation(len(real))[: ROWS * COLUMNS]]}
    for encoding in MODELS:
        folder = trained(data, tree(region, encoding, steps[encoding], side))
        made = bundle.load(folder / "bundle")
        made.to("cpu")
        settings = config.validate(config.read_yaml(folder / "bundle" / "settings.yaml"))
        if encoding == "latents":
            coded = [clean(made.mask_codec.decode(made.mask_codec.encode(m)), settings) for m in real]
            rows.insert(2, row("real, coded", [compare(real, coded, classes, um)]))
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
    for line, (region, kinds) in zip(grid, shown.items(), strict=True):
        for axes, (name, maps) in zip(line, kinds.items(), strict=True):
            axes.imshow(mosaic(maps), interpolation="nearest")
            axes.set_title(f"{name}, maps of {region:g} µm", fontsize=9)
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
    parser.add_argument("--steps", type=int, default=500, help="training steps of bits")
    parser.add_argument("--maps", type=int, default=128, help="maps drawn of each model")
    parser.add_argument("--regions", type=float, nargs="+", default=[128.0, 512.0], help="µm of a map")
    parser.add_argument("--side", type=int, default=SIDE, help="mask pixels of a map, along a side")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    work, console = arguments.work.absolute(), Console(width=110)
    steps = equal_steps(arguments.steps, arguments.side)
    results, shown = {}, {}
    for region in arguments.regions:  # what there is so far is written after each scale
        data = prepared(arguments.masks, work, region, arguments.side)
        rows, shown[region] = judge(data, region, arguments.side, steps, arguments.maps)
        results[f"{region:g}um"] = rows
        title = f"maps of {region:g} µm, {arguments.side}²; steps: "
        console.print(tabulate(rows, title + ", ".join(f"{name} {count}" for name, count in steps.items())))
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=2) + "\n")
        if arguments.picture:
            picture(arguments.picture, shown)


if __name__ == "__main__":
    main()
