"""A canvas as the plan makes it, for tests."""

from diffgen.labels import LabelMap
from diffgen.sampling.canvas import Canvas
from diffgen.sampling.covers import CoverRule, CoverSchedule, RuleName, Sides
from diffgen.sampling.seeds import Purpose
from diffgen.sampling.solvers import Solver

BASE: Sides = ((None, 8),)
WIDE: Sides = ((-2.0, 16), (None, 8))


def make(
    channels: int,
    label_map: LabelMap,
    solver: Solver,
    cover: RuleName = "jittered",
    index: int = 0,
    sides: Sides = BASE,
    overlap: float = 0.25,
) -> Canvas:
    covers = CoverRule(cover, overlap, overlap)
    key, log_snr = (7, index), tuple(solver.log_snr)
    covering = CoverSchedule(*label_map.shape, sides, log_snr, covers, key, Purpose.IMAGE_COVER)
    return Canvas(channels, label_map, covering, solver, (Purpose.IMAGE_NOISE, Purpose.IMAGE_STEP_NOISE))
