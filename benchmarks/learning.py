"""Does training learn? Patches drawn from the weights along a run, against real held-out patches.

    diffgen train image --data DATA --run NAME --set training.image.keep_history=true
    python benchmarks/learning.py runs/NAME --data DATA [--n 256] [--guidance 1] [--json FILE]

At each checkpoint kept in RUN/history/image (at most --checkpoints of them, evenly spread) the averaged
weights draw patches under the label maps of held-out ones, from the same noise each time, without guidance;
those of the last also with each --guidance. A row each:

KID         unbiased squared MMD, cubic kernel, × 1000, between features of drawn and real patches
Fréchet     squared Fréchet distance on the first 64 principal components of real (training) features
nuclei      mean haematoxylin of the pixels under --label less that of the others, as a share of the real
            difference on the same patches

with 95 % intervals by bootstrap over the held-out sources (evaluation/bootstrap.py). Beside them what the
distances are of real patches of the training split (as good as can be), and of the held-out ones after the
autoencoder alone. Under the table: rank correlation of distance with step, and last less first, with
intervals.

Drawn patches are kept in RUN/learning: the same command resumes where it was stopped. About 100 s of one
core a checkpoint for the preset `nuclei`.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from benchmarks import tissue
from benchmarks.tissue import Tissue
from diffgen import config
from diffgen.data.stream import PatchTable
from diffgen.evaluation import divergences
from diffgen.evaluation.bootstrap import RESAMPLES, Estimate, Weights, estimate, mean_of, resampled
from diffgen.evaluation.divergences import COMPONENTS
from diffgen.models import bundle
from diffgen.models.unet import ImageUNet
from diffgen.sampling.decode import from_picture, to_picture
from diffgen.storage import atomic

SHOWN = 10  # label maps in the picture


@dataclass(frozen=True)
class Row:
    """What is said of a set of patches."""

    name: str
    step: int | None
    kid: Estimate
    frechet: Estimate
    contrast: Estimate
    """Difference of haematoxylin."""
    share: Estimate | None
    """Of the real difference."""


@dataclass(frozen=True)
class Judged:
    """A row, and the distances with all their bootstraps (1 + B,)."""

    row: Row
    kid: NDArray[np.float64]
    frechet: NDArray[np.float64]


class Judge:
    """Distances of patches from held-out real ones."""

    def __init__(self, real: Tissue, training: Tissue, label: int, features: Any) -> None:
        self.real, self.training, self.label, self.features = real, training, label, features
        sources = [real.source, training.source]
        self.weights: list[Weights] = resampled(sources, RESAMPLES)
        self.of_real, of_training = features(real.pictures), features(training.pictures)
        self.basis = divergences.principal(of_training, COMPONENTS)
        self.real_contrast = tissue.contrast(real.pictures, real.maps, label)

    def __call__(self, name: str, step: int | None, patches: Tissue) -> Judged:
        weights = self.weights[1] if patches is self.training else self.weights[0]
        found, both = self.features(patches.pictures), (self.weights[0], weights)
        kid = divergences.kid(self.of_real, found, (self.real.source, patches.source), both)
        frechet = divergences.frechet(self.of_real @ self.basis, found @ self.basis, both)
        contrast = tissue.contrast(patches.pictures, patches.maps, self.label)
        means = mean_of(contrast, weights)
        share = None
        if patches is not self.training:
            share = estimate(means / mean_of(self.real_contrast, weights))
        row = Row(name, step, estimate(kid, 1000), estimate(frechet), estimate(means), share)
        return Judged(row, kid, frechet)


def trend(steps: list[int], distances: NDArray[np.float64], times: float = 1.0) -> dict[str, Any]:
    """Of distances (checkpoints, 1 + B): rank correlation with the step, and last less first."""
    ranks = np.array([spearmanr(steps, column).statistic for column in distances.T])
    return {
        "rank_correlation": estimate(ranks, centred=False),
        "p": float(spearmanr(steps, distances[:, 0]).pvalue),
        "last_less_first": estimate(distances[-1] - distances[0], times),
        "last_of_first": float(distances[-1, 0] / distances[0, 0]),
    }


def checkpoints(run: Path, most: int) -> list[tuple[int, Path]]:
    """(step, folder of averaged weights), evenly spread, the first and the last among them."""
    found = sorted((int(path.name.split("-")[1]), path) for path in (run / "history/image").glob("step-*"))
    if len(found) < 2:
        raise SystemExit(
            f"{run}/history/image: fewer than two checkpoints (training.image.keep_history=true)"
        )
    return [found[i] for i in np.unique(np.linspace(0, len(found) - 1, most).round().astype(int))]


def drawn(
    run: Path, base: bundle.Bundle, sampling: config.Sampling, step: int, weights: Path, real: Tissue
) -> Tissue:
    """Patches of a checkpoint, kept in the run's folder."""
    guided = f"-guidance-{sampling.guidance.scale:g}" if sampling.guidance.scale else ""
    kept = run / f"learning/step-{step:07d}-{len(real)}{guided}.npz"
    if kept.exists():
        return real.drawn(np.load(kept)["pictures"])
    unet = ImageUNet.from_pretrained(weights, use_safetensors=True, low_cpu_mem_usage=False)
    pictures, _ = tissue.paint(base, unet, sampling, real)
    kept.parent.mkdir(exist_ok=True)
    with atomic(kept) as file:
        np.savez_compressed(file, pictures=pictures)
    return real.drawn(pictures)


def through_autoencoder(base: bundle.Bundle, real: Tissue) -> Tissue:
    images = torch.from_numpy(np.stack([from_picture(picture) for picture in real.pictures]))
    decoded = base.codec.decode(base.codec.encode(images)).numpy()
    return real.drawn(np.stack([to_picture(image) for image in decoded]))


def picture(path: Path, base: bundle.Bundle, real: Tissue, along: list[Tissue]) -> None:
    """Label maps, real patches, and below them what was drawn at each checkpoint."""
    chosen = np.linspace(0, len(real) - 1, SHOWN).astype(int)
    rows = [np.stack([base.labels.paint(real.maps[k]) for k in chosen])]
    rows += [patches.pictures[chosen] for patches in (real, *along)]
    tiles = np.pad(np.stack(rows), ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    across = tiles.transpose(0, 2, 1, 3, 4)
    height, width = across.shape[0] * across.shape[1], across.shape[2] * across.shape[3]
    Image.fromarray(across.reshape(height, width, 3)).save(path)


def shown(rows: list[Row], trends: dict[str, dict[str, Any]], title: str, console: Console) -> None:
    table = Table("patches", "KID × 1000", "Fréchet (64)", "nuclei: haematoxylin", "of the real", title=title)
    for row in rows:
        share = "" if row.share is None else str(row.share)
        table.add_row(row.name, str(row.kid), str(row.frechet), str(row.contrast), share)
    console.print(table)
    for name, found in trends.items():
        console.print(
            f"{name}: rank correlation with the step {found['rank_correlation']} (p = {found['p']:.2g}), "
            f"last less first {found['last_less_first']}, last ÷ first {found['last_of_first']:.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--data", type=Path, required=True, help="its prepared data")
    parser.add_argument("--n", type=int, default=256, help="patches a checkpoint")
    parser.add_argument("--checkpoints", type=int, default=10, help="at most")
    parser.add_argument("--guidance", type=float, nargs="+", default=[], help="the last one with it, too")
    parser.add_argument("--label", default="nuclei", help="the class whose pixels are dark")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="label maps, real and drawn patches")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    console = Console()
    console.width = max(console.width, 140)  # a table is not cut where it is written to a file
    steps = checkpoints(given.run, given.checkpoints)
    settings = config.validate(config.read_yaml(given.run / "settings.yaml"))
    alone = settings.sampling.model_copy(update={"guidance": config.GuidanceSettings()})
    base = bundle.load(given.run / "base")
    side = settings.image_patch_px
    real = tissue.crops(PatchTable(given.data, "image", "test"), side, given.n)
    training = tissue.crops(
        PatchTable(given.data, "image", "train"), side, given.n, int(real.source.max()) + 1
    )
    judge = Judge(real, training, base.labels.classes.index(given.label), tissue.Features())
    along, patches = [], []
    with console.status("") as status:
        for step, weights in steps:
            status.update(f"step {step}")
            patches.append(drawn(given.run, base, alone, step, weights, real))
            along.append(judge(f"step {step}", step, patches[-1]))
        rows, (step, weights) = [judged.row for judged in along], steps[-1]
        for guidance in given.guidance:
            name = f"step {step}, guidance {guidance:g}"
            status.update(name)
            sampling = alone.model_copy(update={"guidance": config.GuidanceSettings(scale=guidance)})
            patches.append(drawn(given.run, base, sampling, step, weights, real))
            rows.append(judge(name, None, patches[-1]).row)
        rows.append(judge("real, through the autoencoder", None, through_autoencoder(base, real)).row)
        rows.append(judge("real, of the training split", None, training).row)
    contrast = estimate(mean_of(judge.real_contrast, judge.weights[0]))
    numbers = [step for step, _ in steps]
    trends = {
        "kid": trend(numbers, np.stack([judged.kid for judged in along]), 1000),
        "frechet": trend(numbers, np.stack([judged.frechet for judged in along])),
    }
    sources = len(np.unique(real.source))
    shown(rows, trends, f"{len(real)} patches of {side} px, {sources} held-out sources", console)
    console.print(f"real held-out patches: haematoxylin under {given.label} less the rest {contrast}")
    found = {"rows": [vars(row) for row in rows], "trends": trends, "real_contrast": contrast}
    tissue.write_json(given.json, {"patches": len(real), "sources": sources, **found})
    if given.picture:
        picture(given.picture, base, real, patches)


if __name__ == "__main__":
    main()
