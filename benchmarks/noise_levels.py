"""At which noise levels is likeness to real tissue lost? Real latents, noised and drawn from there.

    python benchmarks/noise_levels.py DATA BUNDLE [BUNDLE …] [--n 96] [--bf16] [--json FILE]

Training patches are encoded, noised to the log-SNR of a step and drawn from that step on, under their own
label map, context and appearance, on a canvas larger than a patch by a rim that is cut off, from the same
noise by each bundle, without guidance and guided as the bundle says. The first row draws from noise alone. A
row each:

KID         × 1000, features of EfficientNet-Lite0, against other training patches (the last row: real ones),
            with 95 % intervals over pictures
IP, IR      improved precision and recall against the same

and, of further bundles, from noise alone: KID less that of the first, by the same pictures in each
draw of the bootstrap. At most a minute or two of one core per row.
"""

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks import tissue
from diffgen import config
from diffgen.data.stream import PatchTable
from diffgen.evaluation import divergences
from diffgen.evaluation.bootstrap import RESAMPLES, Estimate, estimate, resampled
from diffgen.evaluation.precision_recall import precision_recall
from diffgen.models import bundle
from diffgen.models.bundle import Bundle
from diffgen.sampling import loop
from diffgen.sampling.canvas import Canvas, GlobalCondition
from diffgen.sampling.decode import Tiling, decode, from_picture

RIM = 2  # latent pixels on each side: what lies at a border is decoded without its neighbours
AT_ONCE = 16


class Chosen:
    """Patches of the training split, cut to the middle `side` pixels."""

    def __init__(self, patches: PatchTable, numbers: NDArray[np.intp], side: int) -> None:
        self.pictures = np.stack([_middle(patches.picture(int(n)), side) for n in numbers])
        self.maps = np.stack([_middle(patches.label_map(int(n)), side) for n in numbers])
        self.contexts = [1 + patches.context(int(n)) for n in numbers]
        self.appearances = patches.appearances[numbers]

    def __len__(self) -> int:
        return len(self.pictures)


def _middle(array: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    y, x = ((size - side) // 2 for size in array.shape[:2])
    return array[y : y + side, x : x + side]


def begin(canvas: Canvas, clean: NDArray[np.float32], step: int) -> Canvas:
    """The canvas at a step, of real latents (C, h, w) and its own noise."""
    noise = canvas.latents / np.float32(canvas.solver.start_scale)
    fresh = {"model_outputs": [None] * 2, "lower_order_nums": 0, "_step_index": step}
    noised = canvas.solver.noised(step, clean, noise)
    canvas.restore({"latents": noised}, {"step": step, "histories": [fresh for _ in canvas.pieces]})
    return canvas


def drawn(
    made: Bundle, sampling: config.Sampling, real: Chosen, clean: NDArray[np.float32], step: int, bf16: bool
) -> NDArray[np.uint8]:
    """Pictures (N, S, S, 3), from `step` on; without their rim."""
    model, factor = tissue.sampler(made, sampling), made.facts.factor
    assert made.image_unet is not None
    known = made.facts.image_contexts > 0
    pictures = []
    for start in range(0, len(real), AT_ONCE):
        canvases = []
        for k in range(start, min(start + AT_ONCE, len(real))):
            look = None if made.appearance is None else made.appearance.standardized(real.appearances[k])
            whole = GlobalCondition(real.contexts[k] if known else 0, look)
            canvas = model.canvas(tissue.latent_map(real.maps[k], factor), k, whole)
            canvases.append(begin(canvas, clean[k], step) if step else canvas)
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            done = loop.sample(canvases, made.image_unet, *model.guidance, AT_ONCE)
        pictures += [decoded(made, latents) for latents in done]
    return np.stack(pictures)


def decoded(made: Bundle, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
    rim = RIM * made.facts.factor
    whole = decode(made.codec.decode, latents, made.facts.factor, Tiling(latents.shape[1], 0))
    return whole[rim:-rim, rim:-rim]


class Judge:
    """Against other pictures (N, S, S, 3)."""

    def __init__(self, others: NDArray[np.uint8], count: int) -> None:
        self.network = tissue.Features()
        self.others = self.network(others)
        self.sources = np.arange(count), count + np.arange(len(others))
        self.weights = resampled(list(self.sources), RESAMPLES)

    def __call__(self, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float64], float, float]:
        """KID with its bootstraps (1 + B,), precision, recall."""
        found = self.network(pictures)
        balls = precision_recall(self.others, found)
        kid = divergences.kid(found, self.others, self.sources, self.weights)
        return kid, float(balls.precise.mean()), float(balls.recalled.mean())


def _said(value: Estimate) -> str:
    return f"{value.value:.0f} [{value.low:.0f}, {value.high:.0f}]"


def measure(
    data: Path, bundles: list[Path], count: int, others: int, bf16: bool, console: Console
) -> dict[str, Any]:
    """Print the table and return it."""
    table = Table("from log-SNR", "guided", "bundle", "KID × 1000", "IP", "IR", "KID less the first's")
    found: dict[str, Any] = {}
    first: dict[tuple[float, bool], NDArray[np.float64]] = {}
    judge: Judge | None = None
    for where in bundles:
        made = bundle.load(where)
        assert made.image_unet is not None
        made.image_unet.eval().to(memory_format=torch.channels_last)
        facts, sampling = made.facts, config.validate(config.read_yaml(where / "settings.yaml")).sampling
        side = (facts.image_patch + 2 * RIM) * facts.factor
        patches = PatchTable(data, "image", "train", least=side)
        order = np.random.default_rng(0).permutation(len(patches.rows))
        real = Chosen(patches, order[:count], side)
        rim = RIM * facts.factor
        if judge is None:
            rest = Chosen(patches, order[count : count + others], side).pictures[:, rim:-rim, rim:-rim]
            judge = Judge(rest, len(real))
        batches = np.array_split(real.pictures, -(-len(real) // AT_ONCE))
        images = [torch.from_numpy(np.stack([from_picture(p) for p in batch])) for batch in batches]
        clean = np.concatenate([made.codec.encode(batch).numpy() for batch in images])
        plain = sampling.model_copy(update={"guidance": config.GuidanceSettings()})
        rows: list[tuple[str, str, NDArray[np.uint8], tuple[float, bool]]] = []
        for guided, asked in ((False, plain), (True, sampling)):
            log_snr = tissue.sampler(made, asked).solver.log_snr
            for step in [0, *range(2, len(log_snr) - 2)] if where == bundles[0] else [0]:
                name = f"{log_snr[step]:.0f}" + ("" if step else " (noise)")
                pictures = drawn(made, asked, real, clean, step, bf16)
                rows.append((name, "yes" if guided else "no", pictures, (log_snr[step], guided)))
                console.print(f"{where}: from {name}, {'' if guided else 'not '}guided", highlight=False)
        if where == bundles[0]:
            rows.append(("autoencoder", "", np.stack([decoded(made, one) for one in clean]), (90.0, False)))
            rows.append(("real", "", real.pictures[:, rim:-rim, rim:-rim], (99.0, False)))
        for name, guided_word, pictures, key in rows:
            kid, precision, recall = judge(pictures)
            less = estimate(kid - first[key], 1000) if key in first else None
            first.setdefault(key, kid)
            value = estimate(kid, 1000)
            table.add_row(
                name, guided_word, str(where), _said(value), f"{precision:.2f}", f"{recall:.2f}",
                "" if less is None else f"{less.value:+.1f} [{less.low:+.1f}, {less.high:+.1f}]",
            )  # fmt: skip
            found[f"{where}, {name}, {guided_word}"] = {
                "kid": value, "precision": precision, "recall": recall, "less": less
            }  # fmt: skip
    console.print(table)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--n", type=int, default=96)
    parser.add_argument("--others", type=int, default=400)
    parser.add_argument("--bf16", action="store_true", help="autocast, for CPUs with AVX512-BF16")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = measure(asked.data, asked.bundles, asked.n, asked.others, asked.bf16, Console(width=120))
    tissue.write_json(asked.json, found)


if __name__ == "__main__":
    main()
