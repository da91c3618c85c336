"""Which choices of training matter? One thing changed at a time, on real tissue, at equal training cost.

    python benchmarks/training_choices.py PAIRS --work DIR [--steps 900] [--json FILE] [--only ROW ...]

PAIRS: images with `<stem>_mask.png` beside them (NuInsSeg as jobs/sources.py writes it, at 0.5 µm per px).
Each row is trained by `diffgen train image` and fills canvases four patches wide under the label maps of
held-out images, from the same noise, without guidance. Short trainings of a small model (0.9 M parameters,
64 px patches): the figures rank the choices at this cost, and a difference counts where it is larger than
that between `base` and `base, seed 1`; the intervals (bootstrap over held-out images) know nothing of it.

cost         base forwards seen in training, the same for all: a wide crop counts as four, and the rows
             without wide crops train for so many more steps
correlation  error of the correlation of luminance with itself at 4 to 192 px, against the real images:
             mean and largest over the distances
seam         squared jump of latents across the borders of the last step's owners over that elsewhere,
             divided by the same of the real latents at the same places; 1 is right
KID          × 1000, whole canvases and crops of a patch (tissue.py)
nuclei       haematoxylin under nuclei less the rest, as a share of the real difference

About an hour of one core; the same command resumes where it was stopped.
"""

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks import tissue
from benchmarks.canvases import LAGS, jumps, luminance_moments, patches_of, seam
from benchmarks.tissue import Tissue
from diffgen import config
from diffgen.data.stream import PatchTable
from diffgen.evaluation.bootstrap import RESAMPLES, Estimate, Weights, estimate, mean_of, resampled
from diffgen.evaluation.divergences import kid
from diffgen.evaluation.structure import correlation
from diffgen.models import bundle
from diffgen.sampling.decode import from_picture, to_picture
from diffgen.sampling.denoise import forwards
from diffgen.storage import atomic
from diffgen.training.cost import small_saving, wide_share

ACROSS = 4  # patches a canvas is wide
SETTINGS: dict[str, Any] = {
    "prepare": {"mpp": 0.5, "stride": 0.5, "mask_stride": 1.0, "min_tissue": 0.0, "test_share": 0.15},
    "autoencoder": {"kind": "linear", "factor": 4, "channels": 12, "latents": "live"},
    "image_model": {"patch": 16, "width": 32, "multipliers": [1, 2, 3], "blocks": 1, "attention": [8, 4],
                    "head_channels": 16, "conditions": [], "label_input": False},
    "mask_model": {"pixel_um": 4.0, "patch": 16, "attention": [8]},
    "diffusion": {"noise_levels": "uniform", "learned_weight": False, "min_snr": 5.0},
    "training": {"precision": "fp32", "image": {"batch": 16, "lr": 1.0e-3, "keep_history": False}},
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    name: str
    change: tuple[str, ...] = ()


ROWS = (
    Row("base"),
    Row("base, seed 1", ("seed=1",)),
    Row("per_label", ("image_model.conditioning=per_label",)),
    Row("fixed crops", ("image_model.context=fixed",)),
    Row("epsilon", ("diffusion.prediction=epsilon",)),
    Row("sample", ("diffusion.prediction=sample",)),
    Row("log-normal noise", ("diffusion.noise_levels=log-normal",)),
    Row("learned weight", ("diffusion.learned_weight=true",)),
    Row("no weight", ("diffusion.min_snr=null",)),
    Row("label input", ("image_model.label_input=true",)),
    Row("small patches", ("image_model.small_patch=8",)),
)
"""Base: joint conditioning, wide crops, v-prediction."""


def cost_per_sample(settings: config.Settings) -> float:
    """Base forwards a training sample costs on average: four where it is wide, a quarter where small."""
    return 1 + 3 * wide_share(settings) - small_saving(settings)


def diffgen(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "diffgen.cli", *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"diffgen {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")


def prepared(pairs: Path, work: Path) -> Path:
    data = work / "data"
    if not (data / "statistics.json").exists():
        tree = config.merge(config.read_yaml(config.preset("nuclei")), SETTINGS)
        (work / "settings.yaml").write_text(yaml.safe_dump(tree))
        diffgen("prepare", str(pairs), "--out", str(data), "--config", str(work / "settings.yaml"))
    return data


def trained(row: Row, data: Path, work: Path, steps: int) -> tuple[Path, int]:
    """The bundle of a row, and the steps it was trained for, at the cost of `steps` of the base."""
    saved = config.read_yaml(data / "settings.yaml")
    base, own = (cost_per_sample(config.load(None, change, saved)) for change in ((), row.change))
    own_steps = round(steps * base / own)
    name = row.name.replace(", ", "-").replace(" ", "-")
    folder = work / "runs" / name
    if not (folder / "bundle" / bundle.INDEX).exists():
        sets = [*row.change, f"places.runs={work / 'runs'}"]
        sets += [f"training.image.{key}={own_steps}" for key in ("steps", "sample_every")]
        sets += [f"training.image.checkpoint_every={max(1, own_steps // 5)}"]
        words = [word for setting in sets for word in ("--set", setting)]
        diffgen("train", "image", "--data", str(data), "--run", name, *words)
    return folder / "bundle", own_steps


def filled(folder: Path, real: Tissue) -> tuple[NDArray[np.uint8], NDArray[np.float32], float]:
    """Pictures and latents of canvases under the label maps of `real`, and forwards a canvas; kept."""
    loaded = bundle.load(folder)
    settings = config.validate(config.read_yaml(folder / "settings.yaml"))
    sampling = settings.sampling.model_copy(update={"guidance": config.GuidanceSettings(), "micro_batch": 32})
    kept = folder.parent / f"canvases-{len(real)}.npz"
    if not kept.exists():
        pictures, latents = tissue.paint(loaded, loaded.image_unet, sampling, real)
        with atomic(kept) as file:
            np.savez_compressed(file, pictures=pictures, latents=latents)
    model = tissue.sampler(loaded, sampling)
    maps = [tissue.latent_map(label_map, loaded.facts.factor) for label_map in real.maps]
    height, width = maps[0].shape
    costs = [forwards(m, model.covers(height, width, k), *model.guidance) for k, m in enumerate(maps)]
    found = np.load(kept)
    return found["pictures"], found["latents"], float(np.mean(costs))


def owners(folder: Path, real: Tissue) -> list[NDArray[np.int32]]:
    """(h, w) owners of the last step of each canvas."""
    loaded = bundle.load(folder, weights=False)
    settings = config.validate(config.read_yaml(folder / "settings.yaml"))
    model = tissue.sampler(loaded, settings.sampling)
    height, width = tissue.latent_map(real.maps[0], loaded.facts.factor).shape
    found = []
    for k in range(len(real)):
        covers = model.covers(height, width, k)
        owner = covers.at(model.steps - 1).owner
        assert owner is not None, "the default rule gives each pixel one owner"
        found.append(owner)
    return found


class Judge:
    """Figures of canvases against the real images whose label maps they fill."""

    def __init__(self, real: Tissue, side: int, label: int, features: Any) -> None:
        self.real, self.side, self.label, self.features = real, side, label, features
        self.crops = patches_of(real, side)
        self.weights: list[Weights] = resampled([real.source, self.crops.source], RESAMPLES)
        self.of_real = [features(part.pictures) for part in (real, self.crops)]
        self.moments = luminance_moments(real.pictures)
        self.contrast = tissue.contrast(real.pictures, real.maps, label)

    def __call__(self, pictures: NDArray[np.uint8]) -> dict[str, Estimate]:
        drawn = self.real.drawn(pictures)
        weights = self.weights[0]
        errors = np.abs(
            correlation(luminance_moments(pictures), weights) - correlation(self.moments, weights)
        )
        kids = [
            kid(of_real, self.features(part.pictures), (part.source, part.source), (w, w))
            for of_real, part, w in zip(
                self.of_real, (drawn, patches_of(drawn, self.side)), self.weights, strict=True
            )
        ]
        contrast = tissue.contrast(pictures, self.real.maps, self.label)
        share = mean_of(contrast, weights) / mean_of(self.contrast, weights)
        return {
            "correlation_mean": estimate(errors.mean(axis=1)),
            "correlation_largest": estimate(errors.max(axis=1)),
            "kid_canvas": estimate(kids[0], 1000),
            "kid_patch": estimate(kids[1], 1000),
            "nuclei": estimate(share),
        }


def judged(row: Row, data: Path, work: Path, steps: int, real: Tissue, judge: Judge) -> dict[str, Any]:
    began = time.monotonic()
    folder, own_steps = trained(row, data, work, steps)
    minutes = (time.monotonic() - began) / 60
    pictures, latents, cost = filled(folder, real)
    loaded = bundle.load(folder)
    images = torch.from_numpy(np.stack([from_picture(picture) for picture in real.pictures]))
    own = owners(folder, real)
    of_real = jumps(loaded.codec.encode(images).numpy(), own)
    return {
        "row": row.name, "steps": own_steps, "minutes": minutes, "forwards": cost, **judge(pictures),
        "seam": estimate(seam(jumps(latents, own), of_real, judge.weights[0])),
        "correlation": correlation(luminance_moments(pictures), judge.weights[0])[0].tolist(),
    }  # fmt: skip


def restored(folder: Path, real: Tissue) -> NDArray[np.uint8]:
    """The real images after the autoencoder alone: as good as can be."""
    codec = bundle.load(folder).codec
    images = torch.from_numpy(np.stack([from_picture(picture) for picture in real.pictures]))
    return np.stack([to_picture(image) for image in codec.decode(codec.encode(images)).numpy()])


def shown(rows: list[dict[str, Any]], title: str) -> Table:
    heads = {"correlation_mean": "correlation, mean", "correlation_largest": "largest", "seam": "seam",
             "kid_canvas": "KID, canvas", "kid_patch": "KID, patch", "nuclei": "nuclei"}  # fmt: skip
    table = Table("", "steps", "forwards", *heads.values(), title=title)
    for row in rows:
        plain = [str(row.get("steps", "")), f"{row['forwards']:.0f}" if "forwards" in row else ""]
        table.add_row(row["row"], *plain, *(str(row.get(key, "")) for key in heads))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for data and runs, kept")
    parser.add_argument("--steps", type=int, default=900, help="of the base")
    parser.add_argument("--canvases", type=int, default=48)
    parser.add_argument("--only", nargs="+", metavar="ROW", help=", ".join(f"'{row.name}'" for row in ROWS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    console = Console()
    console.width = max(console.width, 180)  # a table is not cut where it is written to a file
    work = given.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with console.status("preparing") as status:
        data = prepared(given.pairs.absolute(), work)
        settings = config.validate(config.read_yaml(data / "settings.yaml"))
        patches, side = PatchTable(data, "image", "test"), settings.image_patch_px
        every = tissue.whole(patches, ACROSS * side)
        first = slice(given.canvases)
        real = Tissue(every.pictures[first], every.maps[first], every.source[first])
        judge = Judge(real, side, patches.labels.classes.index("nuclei"), tissue.Features())
        for row in ROWS:
            if given.only is None or row.name in given.only:
                status.update(row.name)
                rows.append(judged(row, data, work, given.steps, real, judge))
        folder, _ = trained(ROWS[0], data, work, given.steps)
        rows.append({"row": "real, through the autoencoder", **judge(restored(folder, real))})
    cost = given.steps * settings.training.image.batch * cost_per_sample(settings)
    title = f"{len(real)} canvases of {ACROSS * side} px; each row was trained on {cost:,.0f} base forwards"
    console.print(shown(rows, title))
    real_correlation = correlation(judge.moments, judge.weights[0])[0].tolist()
    found = {"cost": cost, "canvases": len(real), "lags": LAGS, "real_correlation": real_correlation}
    tissue.write_json(given.json, {**found, "rows": rows})


if __name__ == "__main__":
    main()
