"""A region by itself: a cone of patches, and pixel for pixel what the whole canvas has there."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgen.sampling import covers
from diffgen.sampling.baselines import method
from diffgen.sampling.canvas import Canvas
from diffgen.sampling.region import RegionCanvas, RegionSchedule
from diffgen.sampling.seeds import Purpose
from diffgen.sampling.solvers import Solver, noise_schedule
from tests.sampling.helpers import BASE, WIDE

SCHEDULE = dict(noise_schedule(1000, "squaredcos_cap_v2", "epsilon").config)
PURPOSES = (Purpose.IMAGE_NOISE, Purpose.IMAGE_STEP_NOISE)
RULES = ["jittered", "random", "aligned"]


@st.composite
def schedules(draw: st.DrawFn) -> tuple[covers.CoverSchedule, RegionSchedule]:
    """The covers of a canvas, and those of an area of it."""
    height, width = draw(st.integers(8, 60)), draw(st.integers(8, 60))
    (y0, y1), (x0, x1) = (
        sorted(draw(st.lists(st.integers(0, side), min_size=2, max_size=2, unique=True)))
        for side in (height, width)
    )
    rule = covers.CoverRule(draw(st.sampled_from(RULES)), draw(st.sampled_from([0.125, 0.25])), 0.375)
    log_snr = tuple(np.linspace(-5, 5, draw(st.integers(1, 4))))
    key = (draw(st.integers(0, 9)), draw(st.integers(0, 9)))
    common = (height, width, draw(st.sampled_from([BASE, WIDE])), log_snr, rule, key, Purpose.IMAGE_COVER)
    return covers.CoverSchedule(*common), RegionSchedule(*common, (y0, x0, y1, x1))


def inside(inner: covers.Area, outer: covers.Area) -> bool:
    return all(a >= b for a, b in zip(inner[:2], outer[:2], strict=True)) and all(
        a <= b for a, b in zip(inner[2:], outer[2:], strict=True)
    )


@given(schedules())
def test_the_cone_is_what_the_owners_of_the_whole_read(
    both: tuple[covers.CoverSchedule, RegionSchedule],
) -> None:
    whole, region = both
    assert inside(region.window, (0, 0, whole.height, whole.width))
    assert region.needed[-1] == region.part
    assert 0 < region.share <= 1
    for step, (full, own) in enumerate(zip(whole, region, strict=True)):
        before, (y0, x0, y1, x1) = region.needed[step], region.needed[step + 1]
        assert inside((y0, x0, y1, x1), before)
        assert full.owner is not None
        assert own.owner is not None
        owners = np.unique(full.owner[y0:y1, x0:x1])
        assert all(inside(tuple(box), before) for box in full.boxes[owners].tolist())  # it reads no more
        top, left = region.origin
        assert np.array_equal(own.boxes + np.array([top, left, top, left]), full.boxes[owners])
        placed = own.owner[y0 - top : y1 - top, x0 - left : x1 - left]
        assert np.array_equal(owners[placed], full.owner[y0:y1, x0:x1])
        assert (own.owner >= 0).sum() == placed.size  # and estimates no more
        assert all(own.owned(number).any() for number in range(len(own)))


def filled(canvas: Canvas) -> np.ndarray:
    """y_0 (C, H, W), each estimate a function of all that its patch reads, and of where it lies in it."""
    while not canvas.finished:
        for number in range(len(canvas.cover)):
            patch = canvas.patch_of(number)
            ramp = np.arange(patch.latents[0].size, dtype=np.float32).reshape(patch.latents[0].shape)
            told = patch.latents * np.float32(0.7) + patch.latents.mean() + ramp / ramp.size + patch.labels
            canvas.write(number, told[:, patch.owned].astype(np.float32))
        canvas.advance()
    return canvas.latents


@settings(max_examples=40)
@given(schedules(), st.sampled_from(["dpmsolver++", "sde-dpmsolver++", "unipc", "euler"]))
def test_a_region_is_that_part_of_the_whole(
    both: tuple[covers.CoverSchedule, RegionSchedule], name: str
) -> None:
    whole, region = both
    label_map = np.random.default_rng(0).integers(0, 5, whole.shape).astype(np.uint8)
    y0, x0, y1, x1 = region.window
    steps = whole.steps
    made = filled(Canvas(2, label_map, whole, Solver(name, SCHEDULE, steps), PURPOSES))
    window = label_map[y0:y1, x0:x1]
    alone = filled(RegionCanvas(2, window, region, Solver(name, SCHEDULE, steps), PURPOSES))
    (a, b, c, d), (top, left) = region.part, region.origin
    assert np.array_equal(alone[:, a - top : c - top, b - left : d - left], made[:, a:c, b:d])


@pytest.mark.parametrize("at", [(0, 0), (300, 100), (470, 480)])
def test_noise_and_steps_over_the_blocks_of_the_canvas(at: tuple[int, int]) -> None:
    """Regions whose cone crosses the 128² blocks that a canvas is drawn and stepped in."""
    common = (512, 520, ((None, 32),), (-5.0, 0.0, 5.0), covers.CoverRule("jittered", 0.125, 0.375))
    more = ((1, 2), Purpose.IMAGE_COVER)
    label_map = np.ones((512, 520), np.uint8)
    region = RegionSchedule(*common, *more, (*at, at[0] + 40, at[1] + 30))
    y0, x0, y1, x1 = region.window
    assert (y1 - y0) * (x1 - x0) < label_map.size / 4  # no more is held
    solver = Solver("sde-dpmsolver++", SCHEDULE, 3)
    made = filled(Canvas(2, label_map, covers.CoverSchedule(*common, *more), solver, PURPOSES))
    alone = filled(RegionCanvas(2, label_map[y0:y1, x0:x1], region, solver, PURPOSES))
    (a, b, c, d), (top, left) = region.part, region.origin
    assert np.array_equal(alone[:, a - top : c - top, b - left : d - left], made[:, a:c, b:d])


def test_a_grid_over_a_gigapixel_takes_the_memory_of_its_region() -> None:
    """12,500² latents: a map of all owners would be 600 MB, and no such map is made."""
    rule = method("jittered").rule("jittered", 0.125, 0.375)
    log_snr = tuple(np.linspace(-9, 9, 13))
    sides: covers.Sides = ((None, 64),)
    region = RegionSchedule(
        12500, 12500, sides, log_snr, rule, (0, 0), Purpose.IMAGE_COVER, (5000, 2500, 5256, 2756)
    )
    tracemalloc.start()
    patches = sum(len(cover) for cover in region)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    assert region.share < 0.02
    assert patches < 0.02 * 13 * (12500 / 56) ** 2 * 2
