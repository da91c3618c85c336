from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgen.sampling import baselines, covers
from diffgen.sampling.seeds import Purpose

sides, half = st.integers(0, 60), st.integers(0, 6)
OWNED: tuple[covers.RuleName, ...] = ("jittered", "random", "aligned", "outpaint")
WEIGHTED: tuple[covers.RuleName, ...] = ("multidiffusion", "diffcollage")
FIXED: tuple[covers.RuleName, ...] = ("aligned", "multidiffusion", "outpaint")


def lay(
    name: covers.RuleName, overlap: float, height: int, width: int, patch: int, rng: np.random.Generator
) -> covers.Cover:
    return baselines.method(name).rule(name, overlap, overlap)(height, width, patch, 0.0, rng)


@given(sides, sides, st.integers(1, 24), st.floats(0, 0.95), st.integers(0, 2**32), st.sampled_from(OWNED))
def test_every_pixel_has_one_owner_that_holds_it(
    dy: int, dx: int, patch: int, overlap: float, seed: int, name: covers.RuleName
) -> None:
    """Promise 1, whatever the size, square or not, down to one patch."""
    height, width = patch + dy, patch + dx
    cover = lay(name, overlap, height, width, patch, np.random.default_rng(seed))
    assert cover.owner.shape == (height, width)
    assert (cover.boxes[:, :2] >= 0).all()
    assert (cover.boxes[:, 2:] <= (height, width)).all()
    assert (cover.boxes[:, 2:] - cover.boxes[:, :2] == patch).all()
    written = np.zeros((height, width), int)
    for number in range(len(cover)):
        owned = cover.owned(number)
        assert owned.any(), "a patch that owns nothing is a wasted forward"
        written[cover.box(number)] += owned
    assert (written == 1).all()


@given(st.integers(16, 80), st.integers(16, 80), st.integers(0, 2**32))
def test_jittered_owner_is_the_nearest_centre(height: int, width: int, seed: int) -> None:
    cover = covers.jittered(height, width, 16, np.random.default_rng(seed), 0.25)
    centres = (cover.boxes[:, :2] + cover.boxes[:, 2:]) / 2
    y, x = np.mgrid[:height, :width] + 0.5
    distance = (y[..., None] - centres[:, 0]) ** 2 + (x[..., None] - centres[:, 1]) ** 2
    own = np.take_along_axis(distance, cover.owner[..., None].astype(int), -1)[..., 0]
    assert (own <= distance.min(-1) + 1e-9).all()


@pytest.mark.parametrize("name", ["random", "outpaint"])
def test_a_pixel_belongs_to_the_first_patch_that_holds_it(name: covers.RuleName) -> None:
    """Eq. (6), and what outpainting finishes first."""
    cover = lay(name, 0.375, 40, 56, 16, np.random.default_rng(3))
    for number in range(len(cover)):
        held = cover.owner[cover.box(number)]
        assert (held <= number).all()


@pytest.mark.parametrize(("side", "mean"), [(128, 8.1), (256, 35.9)])
def test_random_rule_costs_what_the_paper_s_code_does(side: int, mean: float) -> None:
    """Mean patches per step with patches of 64, as counted in the released code."""
    counts = [len(covers.random(side, side, 64, np.random.default_rng(seed))) for seed in range(300)]
    assert np.mean(counts) == pytest.approx(mean, rel=0.03)


def test_jitter_shifts_both_directions_and_each_step() -> None:
    offsets = {tuple(covers.jittered(64, 64, 16, np.random.default_rng(k)).boxes[-1, :2]) for k in range(9)}
    assert len(offsets) == 1  # the last patch is clamped to the corner
    inner = {tuple(covers.jittered(64, 64, 16, np.random.default_rng(k)).boxes[6, :2]) for k in range(20)}
    assert len({y for y, _ in inner}) > 3
    assert len({x for _, x in inner}) > 3


@pytest.mark.parametrize("name", get_args(covers.RuleName))
def test_one_patch_canvas(name: covers.RuleName) -> None:
    assert len(lay(name, 0.1, 8, 8, 8, np.random.default_rng(0))) == 1


@given(half, half, st.sampled_from([4, 8, 10]), st.floats(0, 0.9), st.sampled_from(WEIGHTED))
def test_weights_are_shares_of_a_whole(
    dy: int, dx: int, patch: int, overlap: float, name: covers.RuleName
) -> None:
    """What a pixel takes from its patches sums to 1, negative shares included: a constant stays itself."""
    height, width = patch + dy * patch // 2, patch + dx * patch // 2
    cover = lay(name, overlap, height, width, patch, np.random.default_rng(0))
    total = np.zeros((height, width))
    for number in range(len(cover)):
        assert cover.owned(number).all(), "every pixel of a weighted patch takes something from it"
        total[cover.box(number)] += cover.share(number)
    assert np.allclose(total, 1, atol=1e-5)
    held = np.zeros((height, width), int)
    for y0, x0, y1, x1 in cover.boxes:
        held[y0:y1, x0:x1] += 1
    assert np.array_equal(cover.sum(np.ones(len(cover), int)), held)


@given(half, half, st.sampled_from([4, 8, 10]))
def test_diffcollage_counts_each_pixel_once(dy: int, dx: int, patch: int) -> None:
    """Patches +1, overlaps −1, overlaps of overlaps +1: the factor graph's own count, without division."""
    height, width = patch + dy * patch // 2, patch + dx * patch // 2
    cover = baselines.diffcollage(height, width, patch)
    assert set(cover.weights) <= {-1, 1}
    assert (cover.total == 1).all()


@given(sides, sides, st.integers(1, 24), st.floats(0, 0.95))
def test_fixed_rules_ask_the_numbers_nothing(dy: int, dx: int, patch: int, overlap: float) -> None:
    for name in FIXED:
        one, other = (
            lay(name, overlap, patch + dy, patch + dx, patch, np.random.default_rng(k)) for k in (0, 1)
        )
        assert np.array_equal(one.boxes, other.boxes)


LEVELS = tuple(np.linspace(-9, 9, 12))


def cover_schedule(height: int, width: int, rule: covers.RuleName = "jittered") -> covers.CoverSchedule:
    return covers.CoverSchedule(
        height,
        width,
        ((-2.0, 16), (None, 8)),
        LEVELS,
        baselines.method(rule).rule(rule, 0.25, 0.5),
        (3, 4),
        Purpose.IMAGE_COVER,
    )


@given(st.integers(8, 40), st.integers(8, 40))
def test_patches_are_wide_while_it_is_noisy(height: int, width: int) -> None:
    """A canvas narrower than a wide patch takes the base patch throughout."""
    widening = cover_schedule(height, width)
    for step, cover in enumerate(widening):
        wide = widening.log_snr[step] < -2 and min(height, width) >= 16
        assert widening.side(step) == (16 if wide else 8)
        assert {cover.shape(number) for number in range(len(cover))} == {(widening.side(step),) * 2}
        assert widening.cost(cover.shape(0)) == (4 if wide else 1)


def test_patches_overlap_more_while_it_is_noisy() -> None:
    """Where large structure is decided; steps of both kinds have patches of 8 on a canvas this narrow."""
    counts = {level < -2: len(cover) for level, cover in zip(LEVELS, cover_schedule(8, 400), strict=True)}
    assert counts[True] == pytest.approx(400 / (8 * 0.5), abs=2)
    assert counts[False] == pytest.approx(400 / (8 * 0.75), abs=2)


@given(st.sampled_from(get_args(covers.RuleName)), st.integers(0, 11))
def test_a_cover_is_a_function_of_its_step(rule: covers.RuleName, step: int) -> None:
    """Steps may be asked for in any order, and again: a snapshot goes on with the same covers."""
    one, other = cover_schedule(32, 40, rule), cover_schedule(32, 40, rule)
    list(other)
    assert np.array_equal(one.at(step).boxes, other.at(step).boxes)
    if one.at(step).owner is not None:
        assert np.array_equal(one.at(step).owner, other.at(step).owner)


def test_images_and_steps_have_covers_of_their_own() -> None:
    starts = {tuple(cover.boxes.reshape(-1)) for cover in cover_schedule(64, 64)}
    assert len(starts) > 10
    other = replace(cover_schedule(64, 64), key=(3, 5))
    assert not np.array_equal(cover_schedule(64, 64).at(11).boxes, other.at(11).boxes)
