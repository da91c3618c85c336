"""`diffgen synthesize --dry-run`: what a run will take, before anything is written.

Covers are drawn from seeds alone, so forwards are counted, not guessed, wherever they do not depend on
a label map that is yet to be sampled; where they do, the label maps of the first images are sampled.
"""

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from torch.utils.flop_counter import FlopCounterMode

from diffgen import label_maps
from diffgen.labels import LabelMap
from diffgen.lock import RENEW_S
from diffgen.models.bundle import unpack
from diffgen.sampling import denoise, loop
from diffgen.sampling.canvas import Patch
from diffgen.sampling.covers import Area
from diffgen.sampling.guidance import NONE
from diffgen.sampling.region import RegionSchedule
from diffgen.synthesis.image_job import label_map_job
from diffgen.synthesis.plan import Plan
from diffgen.synthesis.region import image_covers, mask_covers, mask_parts
from diffgen.synthesis.sampler import Sampler
from diffgen.synthesis.shards import choose_per_shard
from diffgen.synthesis.store_requests import RENEWAL, Requests, store_requests

COUNTED = 64  # images whose covers are drawn; of more, the mean
SAMPLED = 8  # images whose label map is sampled, where forwards depend on it
DRAWN = 1000  # forwards of the mask model that a region's label map may take to be sampled here
BYTES_PER_PIXEL = 2.0  # of a tissue PNG and its label map
TIMED = 3  # micro-batches of each model that are timed, after one that is not


@dataclass(frozen=True)
class Forecast:
    """What n images will take."""

    forwards: int
    exact: bool
    """Counted for every image, or the mean of the first ones times n, or as if all had one label."""
    per_image: float
    per_megapixel: float
    seconds: float
    """Of one sampler on this machine."""
    flops: float | None
    """Of all forwards, counted; None on a GPU, whose time is measured."""
    disk_bytes: float
    requests: Requests
    """Of an object store, but for those that hold the folder."""
    coordinator_bytes: float
    """Latents, noise, history and maps of the canvases in the works."""
    weights_bytes: float
    """Of a sampler."""
    halo: "Halo | None" = None
    """Of a region, in the first image."""


@dataclass(frozen=True)
class Halo:
    """What a region of an image takes beside itself."""

    window: tuple[int, int]
    """Height and width in pixels of the canvas that is held: the region, and what it depends on."""
    whole: tuple[int, int]
    """Of the image."""
    share: float
    """Pixels that the image model estimates, for each that it estimates for the whole image."""
    mask_share: float | None
    """The same of the mask model; None where label maps are given."""
    times: float
    """The same of the image model, for each that the region by itself would take."""

    @property
    def text(self) -> str:
        """A line on it."""
        (height, width), (rows, columns) = self.window, self.whole
        masks = "" if self.mask_share is None else f" and {100 * self.mask_share:.2g} % of the mask model's"
        cost = f"{100 * self.share:.2g} % of the image model's forwards for the whole{masks}"
        if self.window == self.whole:
            return f"its halo is all of {columns}x{rows} px: no less memory than the whole takes, {cost}"
        return (
            f"with its halo {width}x{height} px of {columns}x{rows}; {cost}, {self.times:.1f} times its area"
        )


def forecast(
    plan: Plan,
    packed: dict[str, bytes],
    n: int,
    in_flight: int,
    step: Callable[[str], None],
    per_shard: int | Literal["auto"] = "auto",
) -> Forecast:
    """Count, time and add up; `step` is told what is being done."""
    with tempfile.TemporaryDirectory() as folder:
        sampler = Sampler(unpack(packed, Path(folder)), plan.sampling, plan.made_on["device"] != "cpu")
    step("counting forwards")
    guidance, conditioning = plan.model("image").guidance
    # On the labels in each patch, or, of a region, on how far its cleaning looks.
    depends = not plan.masks and (conditioning != "joint" or plan.region is not None)
    sure = bool(depends or plan.masks or not guidance.scale)  # else but for patches that are wholly unknown
    images = range(min(n, SAMPLED if depends else COUNTED))
    counted, exact = {stage: [0] * len(images) for stage in ("mask", "image")}, sure and len(images) == n
    for k in images:
        covers = image_covers(plan, k)
        y0, x0, y1, x1 = covers.window
        if (given := plan.given(k)) is not None:
            on_latents = label_maps.on_grid(given[1], plan.facts.factor)[y0:y1, x0:x1]
        elif depends and (plan.region is None or _mask_forwards(plan, k, covers.window) <= DRAWN):
            on_latents, counted["mask"][k] = _label_map(plan, sampler, k, covers.window)
        else:
            on_latents = np.ones(covers.shape, dtype=np.uint8)  # any takes the same forwards
            counted["mask"][k] = _mask_forwards(plan, k, covers.window)
            exact = exact and not depends
        counted["image"][k] = denoise.forwards(on_latents, covers, *plan.model("image").guidance)
    step("timing the models")
    share, seconds, flops = n / len(images), 0.0, 0.0
    for stage, counts in counted.items():
        if any(counts):
            took, computed = _a_forward(plan, sampler, stage)
            seconds += sum(counts) * share * took
            flops += sum(counts) * share * computed
    pixels = sum(float(np.prod(plan.made_size(k))) for k in range(n))
    factor, channels = plan.facts.factor, plan.facts.image_channels
    halo, sizes = _halo(plan), plan.sizes
    if halo is not None:
        sizes = (halo.window,)
    cells = max(height * width for height, width in sizes) / factor**2
    own = factor**2 if plan.masks else 0  # a given label map has the image's size
    bytes_per_cell = 16 * channels + 8 + own
    total = round(sum(sum(counts) for counts in counted.values()) * share)
    samples = plan.first_sample(n)
    each = choose_per_shard(samples) if per_shard == "auto" else per_shard
    return Forecast(
        total,
        exact,
        total / n,
        total / pixels * 1e6,
        seconds,
        flops or None,
        pixels * BYTES_PER_PIXEL,
        store_requests(samples, each, pixels * BYTES_PER_PIXEL / samples),
        min(n, in_flight) * cells * bytes_per_cell,
        sum(p.numel() * p.element_size() for p in sampler.parameters()),
        halo,
    )


def gpu_hours(cost: Forecast, works_on: str, tflops: float | None) -> str:
    """Hours of a GPU, and what they rest on: measured, or FLOPs by a rate that was given; else not known."""
    if works_on != "cpu":
        return f"{cost.seconds / 3600:.3g} of denoising, as measured on the {works_on} here"
    if not cost.flops:
        return "0"
    counted = f"{cost.flops / 1e12:.4g} TFLOP of denoising"
    if tflops is None:
        return (
            f"not known, as no GPU is here: {counted}; --set synthesis.gpu_tflops= what one achieves a second"
        )
    return (
        f"{cost.flops / (tflops * 1e12) / 3600:.3g} at {tflops:g} TFLOP/s (synthesis.gpu_tflops): {counted}"
    )


def store(cost: Forecast) -> str:
    """Requests of an object store."""
    held = RENEWAL.writes * 3600 / RENEW_S, RENEWAL.reads * 3600 / RENEW_S
    return (
        f"about {cost.requests.writes:,} requests that write or list, {cost.requests.reads:,} that read; "
        f"and {held[0]:,.0f} and {held[1]:,.0f} an hour while it runs"
    )


def _halo(plan: Plan) -> Halo | None:
    covers = image_covers(plan, 0)
    if not isinstance(covers, RegionSchedule):
        return None
    rows, columns = (side * plan.facts.factor for side in covers.shape)
    whole, mask_share = plan.size_of(0), None
    if not plan.masks:
        mask = mask_covers(plan, 0, next(mask_parts(plan, 0, covers.window)))
        mask_share = mask.share if isinstance(mask, RegionSchedule) else 1.0
    own = math.prod(plan.made_size(0)) / math.prod(whole)
    return Halo((rows, columns), whole, covers.share, mask_share, covers.share / own)


def _mask_forwards(plan: Plan, index: int, window: Area) -> int:
    """Of the mask canvas, or of the part of it that is drawn first."""
    covers = mask_covers(plan, index, next(mask_parts(plan, index, window)))
    return denoise.forwards(plan.context_map(index, covers.shape), covers, *plan.model("mask").guidance)


def _label_map(plan: Plan, sampler: Sampler, index: int, window: Area) -> tuple[LabelMap, int]:
    """The label map of an image in a window of the latent grid, as the run will draw it, and its forwards."""
    model, taken = plan.model("mask"), 0
    for part in mask_parts(plan, index, window):
        covers = mask_covers(plan, index, part)
        label_map = plan.context_map(index, covers.shape)
        taken += denoise.forwards(label_map, covers, *model.guidance)
        canvas = model.canvas(label_map, index, covers=covers)
        loop.sample([canvas], sampler.models["mask"].network, *model.guidance, plan.sampling.batch)
        made = sampler.label_maps(label_map_job(canvas, *plan.size_of(index), part))
        if made.sure:
            break
    return made.on_latents, taken


def _a_forward(plan: Plan, sampler: Sampler, stage: str) -> tuple[float, float]:
    """Seconds and FLOPs of a forward of the base patch in a full micro-batch; on a GPU no FLOPs."""
    model, batch = plan.model(stage), plan.sampling.batch
    side = model.base
    blank = Patch(
        np.zeros((model.channels, side, side), np.float32),
        1,
        np.ones((side, side), np.uint8),
        np.ones((side, side), np.bool_),
    )

    def estimate() -> float:
        began = time.perf_counter()
        network = sampler.models[stage].network
        denoise.estimate(network, [blank] * batch, NONE, "joint", batch, bf16=sampler.bf16)
        return time.perf_counter() - began

    flops = 0.0
    if plan.made_on["device"] == "cpu":
        with FlopCounterMode(display=False) as counter:
            estimate()
        flops = float(counter.get_total_flops())
    times = [estimate() for _ in range(1 + TIMED)]
    return float(np.median(times[1:])) / batch, flops / batch
