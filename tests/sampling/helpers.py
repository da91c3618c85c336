"""A canvas as the plan makes it, for tests."""

from diffgen.labels import LabelMap
from diffgen.sampling import baselines
from diffgen.sampling.canvas import Canvas
from diffgen.sampling.covers import RuleName, Sides
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
    of = baselines.method(cover)
    key, log_snr = (7, index), tuple(solver.log_snr)
    rule = of.rule(cover, overlap, overlap)
    covers = of.schedule(*label_map.shape, sides, log_snr, rule, key, Purpose.IMAGE_COVER)
    return of.canvas(channels, label_map, covers, solver, (Purpose.IMAGE_NOISE, Purpose.IMAGE_STEP_NOISE))
