"""How one of the two models is sampled from: the same for the plan, and for the samplers at work on it."""

import math
from dataclasses import dataclass
from typing import Any

from diffgen import config
from diffgen.labels import LabelMap, Labels
from diffgen.models.bundle import GeneratorConfig
from diffgen.models.mask_codec import num_bits
from diffgen.sampling import baselines
from diffgen.sampling.canvas import Canvas, GlobalCondition
from diffgen.sampling.covers import Area, CoverSchedule, Sides
from diffgen.sampling.denoise import Conditioning
from diffgen.sampling.guidance import Guidance
from diffgen.sampling.region import RegionCanvas, RegionSchedule
from diffgen.sampling.seeds import Purpose
from diffgen.sampling.solvers import Solver

MASK = (Purpose.MASK_NOISE, Purpose.MASK_STEP_NOISE, Purpose.MASK_COVER)
IMAGE = (Purpose.IMAGE_NOISE, Purpose.IMAGE_STEP_NOISE, Purpose.IMAGE_COVER)


@dataclass(frozen=True)
class ModelSetup:
    """How one of the two models is sampled from."""

    seed: int
    sampling: config.Sampling
    schedule: dict[str, Any]
    channels: int
    sides: Sides
    steps: int
    guidance: tuple[Guidance, Conditioning]
    purposes: tuple[Purpose, Purpose, Purpose]
    """Streams of y_T, of the solver's noise, and of the covers."""

    @property
    def base(self) -> int:
        """Patch side whose forwards are the unit of cost."""
        return self.sides[-1][1]

    @property
    def solver(self) -> Solver:
        sampling = self.sampling
        return Solver(sampling.solver, self.schedule, self.steps, sampling.eta, sampling.spacing)

    def covers(self, height: int, width: int, index: int, part: Area | None = None) -> CoverSchedule:
        """All covers of a canvas (H, W) of image `index`, or what a part of it depends on of them."""
        sampling, log_snr = self.sampling, tuple(self.solver.log_snr)
        of = baselines.method(sampling.cover)
        rule = of.rule(sampling.cover, sampling.overlap, sampling.noisy_overlap)
        common = (height, width, self.sides, log_snr, rule, (self.seed, index), self.purposes[2])
        return of.schedule(*common) if part is None else RegionSchedule(*common, part)

    def canvas(
        self,
        label_map: LabelMap,
        index: int,
        whole: GlobalCondition | None = None,
        covers: CoverSchedule | None = None,
    ) -> Canvas:
        """The canvas of image `index` under a label map (H, W) on its own grid, or `covers`' window of it."""
        height, width = label_map.shape
        covers = covers or self.covers(height, width, index)
        begin = baselines.method(self.sampling.cover).canvas
        if isinstance(covers, RegionSchedule):
            begin = RegionCanvas
        return begin(self.channels, label_map, covers, self.solver, self.purposes[:2], whole)


def model_setup(
    name: str,
    facts: GeneratorConfig,
    labels: Labels,
    schedule: dict[str, Any],
    sampling: config.Sampling,
    seed: int = 0,
) -> ModelSetup:
    """Of the `mask` or the `image` model of a bundle."""
    if name == "mask":
        channels = facts.mask_channels or num_bits(len(labels))
        return ModelSetup(
            seed, sampling, schedule, channels, ((None, facts.mask_patch),), sampling.mask_steps,
            (Guidance(sampling.mask_guidance), "per_label"), MASK,
        )  # fmt: skip
    assert name == "image", name
    sides, conditioning = facts.patch_by_log_snr, facts.conditioning
    return ModelSetup(
        seed, sampling, schedule, facts.image_channels, sides, sampling.steps_for(len(sides)),
        (guidance_of(sampling, schedule), "joint" if conditioning == "joint" else "per_label"), IMAGE,
    )  # fmt: skip


def guidance_of(sampling: config.Sampling, schedule: dict[str, Any]) -> Guidance:
    """How the image model is guided; the schedule says what its estimates are."""
    said = sampling.guidance
    low = -math.inf if said.low is None else said.low
    high = math.inf if said.high is None else said.high
    return Guidance(said.scale, said.kind, low, high, said.rescale, schedule["prediction_type"])
