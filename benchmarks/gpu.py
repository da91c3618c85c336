"""What a card gives: U-Nets alone, the pipeline around them, training steps, in one table.

    python benchmarks/gpu.py [--device cuda] [--config tissue paper] [--seconds 480] [--json FILE] [--quick]

matmul      the card's own rate, of a large product in bf16: the peak that shares are of
forwards    U-Net forwards per second of the base patch, by batch, in fp32 (TF32) and bf16
pipeline    one image with its label map, decode and PNG, by the code of `synthesize --inline`: seconds,
            forwards per second beside those of the bare U-Net, and whether twice the same bytes come out
train       steps per second (forward, backward, AdamW), with and without torch.compile

Weights are random: speed does not depend on them. Needs no Ray. What does not fit into --seconds is left
out, and the table says so. --quick is a test.
"""

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from diffgen import config
from diffgen.appearance import NAMES, Appearance
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.models.autoencoder import LatentCodec, LinearAutoencoder
from diffgen.models.mask_codec import num_bits
from diffgen.sampling.solvers import noise_schedule
from diffgen.synthesis import driver
from diffgen.training.autoencoder import new_autoencoder
from diffgen.training.cost import count

CLASSES = ("unknown", "stroma", "lumen", "gland")
BATCHES = (8, 32, 64, 128, 256)
TIMED = 5


def seconds_of(run: Callable[[], Any], device: str, repeats: int) -> float:
    """Median seconds of a call, after two that do not count."""
    times = []
    for k in range(repeats + 2):
        began = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        if k >= 2:
            times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]


def matmul_rate(device: str, side: int) -> float:
    """FLOP/s of a square product in bf16."""
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    return 2 * side**3 / seconds_of(lambda: a @ a, device, 10)


def settings_of(name: str) -> config.Settings:
    """A preset with an autoencoder that needs no download, whose latents have its shape."""
    tree = config.load(name).model_dump(mode="json")
    return config.validate(config.merge(tree, {"autoencoder": {"kind": "linear", "latents": "live"}}))


def random_bundle(name: str, labels: Labels, folder: Path) -> None:
    """A bundle of a preset's networks with random weights."""
    torch.manual_seed(0)
    settings = settings_of(name)
    auto = config.load(name).autoencoder
    model: Any = LinearAutoencoder(auto.factor, auto.channels)
    if auto.kind == "conv":
        model = new_autoencoder(config.load(name))
    bits = settings.model_copy(
        update={"mask_model": settings.mask_model.model_copy(update={"encoding": "bits"})}
    )
    image = bundle.new_image_unet(bits, labels)
    mask = bundle.new_mask_unet(bits, labels, num_bits(len(labels)))
    for parameter in (*image.parameters(), *mask.parameters()):
        parameter.data += 0.01 * torch.randn_like(parameter)
    diffusion = settings.diffusion
    schedule = dict(noise_schedule(diffusion.steps, diffusion.schedule, diffusion.prediction).config)
    codec = LatentCodec(model)
    made = bundle.Bundle(bundle.generator_config(bits, codec), labels, schedule, codec, image, mask)
    if "appearance" in settings.image_model.conditions:
        made.appearance = Appearance.fit(
            torch.randn(64, len(NAMES)).numpy(), torch.ones(64, dtype=torch.int64).numpy()
        )
    bundle.save(made, folder, bits, "Random weights, to measure with.\n")


def inputs(settings: config.Settings, batch: int, device: str) -> tuple[torch.Tensor, ...]:
    """Noisy latents, time steps and label maps of a batch of base patches."""
    side = settings.image_model.patch
    return (
        torch.randn(batch, settings.autoencoder.channels, side, side, device=device),
        torch.randint(0, 1000, (batch,), device=device),
        torch.randint(1, len(CLASSES), (batch, side, side), device=device),
    )


def forwards(unet: Any, given: tuple[torch.Tensor, ...], device: str, bf16: bool) -> float:
    """Forwards per second."""

    @torch.inference_mode()
    def run() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            unet(*given)

    return len(given[0]) / seconds_of(run, device, TIMED)


def steps_per_second(unet: Any, given: tuple[torch.Tensor, ...], device: str, compiled: bool) -> float:
    """Training steps per second: forward and backward in bf16, fused AdamW."""
    optimizer = torch.optim.AdamW(unet.parameters(), fused=device == "cuda")
    run_unet = torch.compile(unet) if compiled else unet

    def run() -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = run_unet(*given).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return 1 / seconds_of(run, device, TIMED)


def pipeline(folder: Path, settings: config.Settings, size: int, out: Path) -> tuple[float, float, str]:
    """Seconds, forwards per second and SHA-256 of the shard of one image, by the code of `--inline`."""
    tree = settings.model_dump(mode="json")
    tree["synthesis"] |= {"n": 1, "size": str(size)}
    done = driver.synthesize(folder, str(out), config.validate(tree), None, True, Console(quiet=True))
    digest = hashlib.sha256((out / "shard-000000.tar").read_bytes()).hexdigest()
    return done.seconds, done.status.forwards / done.seconds, digest


def measure(
    name: str, device: str, peak: float, size: int, batches: tuple[int, ...], late: Callable[[], bool]
) -> list[tuple[str, float | str]]:
    """Rows (what, figure) of one preset; what comes too late is left out."""
    settings, labels = settings_of(name), Labels(CLASSES)
    rows: list[tuple[str, float | str]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "bundle"
        random_bundle(name, labels, folder)
        unet: Any = bundle.load(folder).image_unet
        unet = unet.to(device).to(memory_format=torch.channels_last).eval()
        rows.append(("parameters, millions", sum(p.numel() for p in unet.parameters()) / 1e6))
        flops = (
            count("image", settings, labels).flops_per_step / settings.training.image.batch / 3
        )  # forward alone
        best = 0.0
        for batch in batches:
            for bf16 in (False, True):
                if late():
                    return [*rows, ("left out for lack of time", "forwards and what follows")]
                rate = forwards(unet, inputs(settings, batch, device), device, bf16)
                best = max(best, rate)
                rows.append((f"forwards/s, batch {batch}, {'bf16' if bf16 else 'fp32'}", rate))
        rows.append(("TFLOP/s at best", best * flops / 1e12))
        rows.append(("share of the matmul rate", best * flops / peak))
        digests = set()
        for turn in ("first", "again"):
            if late():
                return [*rows, ("left out for lack of time", "pipeline and what follows")]
            took, rate, digest = pipeline(folder, settings, size, Path(scratch) / turn)
            digests.add(digest)
            rows.append((f"pipeline, {size}² image with label map, {turn}, s", took))
            rows.append((f"pipeline forwards/s, {turn}", rate))
        rows.append(("equal bytes twice", "yes" if len(digests) == 1 else "NO"))
        unet = (
            bundle.new_image_unet(settings, labels).to(device).to(memory_format=torch.channels_last).train()
        )
        for compiled in (False, True):
            if late() or (compiled and device == "cpu"):
                break
            given = inputs(settings, batches[-1], device)
            rate = steps_per_second(unet, given, device, compiled)
            rows.append((f"training steps/s, batch {batches[-1]}{', compiled' if compiled else ''}", rate))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--config", nargs="+", default=["tissue", "paper"])
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    began = time.monotonic()
    name = torch.cuda.get_device_name() if given.device == "cuda" else "cpu"
    peak = matmul_rate(given.device, 8192 if given.device == "cuda" else 1024)
    size, batches = (256, (2,)) if given.quick else (2048, BATCHES)
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "matmul_tflops": peak / 1e12}
    table = Table("preset", "what", "figure", title=f"{name}: {peak / 1e12:.1f} TFLOP/s of bf16 matmul")
    for preset in given.config:
        rows = measure(
            preset, given.device, peak, size, batches, lambda: time.monotonic() - began > 0.85 * given.seconds
        )
        found[preset] = dict(rows)
        for what, figure in rows:
            table.add_row(preset, what, figure if isinstance(figure, str) else f"{figure:.3g}")
    Console().print(table)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
