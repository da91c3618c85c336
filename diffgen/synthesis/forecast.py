"""`diffgen synthesize --dry-run`: what a run will take, before anything is written.

Covers are drawn from seeds alone, so forwards are counted, not guessed, wherever they do not depend on
a label map that is yet to be sampled; where they do, the label maps of the first images are sampled.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffgen import label_maps
from diffgen.labels import LabelMap
from diffgen.models.bundle import unpack
from diffgen.sampling import denoise, loop
from diffgen.sampling.canvas import Patch
from diffgen.sampling.guidance import NONE
from diffgen.synthesis.image_job import LabelMapJob
from diffgen.synthesis.plan import Plan
from diffgen.synthesis.sampler import Sampler

COUNTED = 64  # images whose covers are drawn; of more, the mean
SAMPLED = 8  # images whose label map is sampled, where forwards depend on it
BYTES_PER_PIXEL = 2.0  # of a tissue PNG and its label map
TIMED = 3  # micro-batches of each model that are timed, after one that is not


@dataclass(frozen=True)
class Forecast:
    """What n images will take."""

    forwards: int
    exact: bool
    """Counted for every image, or the mean of the first ones times n."""
    per_image: float
    per_megapixel: float
    seconds: float
    """Of one sampler on this machine."""
    disk_bytes: float
    coordinator_bytes: float
    """Latents, noise, history and maps of the canvases in the works."""
    weights_bytes: float
    """Of a sampler."""


def forecast(
    plan: Plan, packed: dict[str, bytes], n: int, in_flight: int, step: Callable[[str], None]
) -> Forecast:
    """Count, time and add up; `step` is told what is being done."""
    with tempfile.TemporaryDirectory() as folder:
        sampler = Sampler(unpack(packed, Path(folder)), plan.sampling, plan.made_on["device"] != "cpu")
    step("counting forwards")
    depends = not plan.masks and plan.model("image").guidance != (NONE, "joint")
    images = range(min(n, SAMPLED if depends else COUNTED))
    counted = {stage: [0] * len(images) for stage in ("mask", "image")}
    for k in images:
        if (given := plan.given(k)) is None:
            counted["mask"][k] = _forwards(plan, "mask", k, plan.context_map(k))
            on_latents = _label_map(plan, sampler, k) if depends else _any(plan, k)
        else:
            on_latents = label_maps.on_grid(given[1], plan.facts.factor)
        counted["image"][k] = _forwards(plan, "image", k, on_latents)
    step("timing the models")
    share = n / len(images)
    seconds = sum(
        sum(counts) * share * _seconds(plan, sampler, stage)
        for stage, counts in counted.items()
        if any(counts)
    )
    pixels = sum(float(np.prod(plan.size_of(k))) for k in range(n))
    factor, channels = plan.facts.factor, plan.facts.image_channels
    cells = max(height * width for height, width in plan.sizes) / factor**2
    own = factor**2 if plan.masks else 0  # a given label map has the image's size
    bytes_per_cell = 16 * channels + 8 + own
    total = round(sum(sum(counts) for counts in counted.values()) * share)
    return Forecast(
        total,
        len(images) == n,
        total / n,
        total / pixels * 1e6,
        seconds,
        pixels * BYTES_PER_PIXEL,
        min(n, in_flight) * cells * bytes_per_cell,
        sum(p.numel() * p.element_size() for p in sampler.parameters()),
    )


def _forwards(plan: Plan, stage: str, index: int, label_map: LabelMap) -> int:
    model = plan.model(stage)
    height, width = label_map.shape
    return denoise.forwards(label_map, model.covers(height, width, index), *model.guidance)


def _any(plan: Plan, index: int) -> LabelMap:
    """A label map, where any takes the same forwards."""
    height, width = (side // plan.facts.factor for side in plan.size_of(index))
    return np.ones((height, width), dtype=np.uint8)


def _label_map(plan: Plan, sampler: Sampler, index: int) -> LabelMap:
    """The label map of an image at the latent grid, as the run will draw it."""
    model = plan.model("mask")
    canvas = model.canvas(plan.context_map(index), index)
    (drawn,) = loop.sample([canvas], sampler.models["mask"][0], *model.guidance, plan.sampling.batch)
    return sampler.label_maps(LabelMapJob(drawn, *plan.size_of(index))).on_latents


def _seconds(plan: Plan, sampler: Sampler, stage: str) -> float:
    """Seconds a forward of the base patch in a full micro-batch."""
    model, batch = plan.model(stage), plan.sampling.batch
    side = model.base
    blank = Patch(
        np.zeros((model.channels, side, side), np.float32),
        1,
        np.ones((side, side), np.uint8),
        np.ones((side, side), np.bool_),
    )
    times = []
    for _ in range(1 + TIMED):
        began = time.perf_counter()
        denoise.estimate(sampler.models[stage][0], [blank] * batch, NONE, "joint", batch)
        times.append(time.perf_counter() - began)
    return float(np.median(times[1:])) / batch
