import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgen.sampling.canvas import Canvas, NonFiniteError
from diffgen.sampling.seeds import BLOCK
from diffgen.sampling.solvers import Solver, noise_schedule
from tests.sampling import helpers

SCHEDULE = dict(noise_schedule(1000, "squaredcos_cap_v2", "epsilon").config)
SOLVERS = ["dpmsolver++", "sde-dpmsolver++", "unipc", "euler", "ddim"]


def make(
    height: int,
    width: int,
    rule: str = "jittered",
    index: int = 0,
    solver: str = "dpmsolver++",
    steps: int = 4,
) -> Canvas:
    """A canvas whose first steps have patches of 16 where it is wide enough, else of 8."""
    made = Solver(solver, SCHEDULE, steps, eta=float(solver == "ddim"))
    label_map = np.zeros((height, width), np.uint8)
    return helpers.make(2, label_map, made, rule, index, helpers.WIDE)


def fill(canvas: Canvas, steps: int) -> None:
    for _ in range(steps):
        for number in range(len(canvas.cover)):
            canvas.write(number, smear(canvas, number))
        canvas.advance()


def smear(canvas: Canvas, number: int) -> np.ndarray:
    """A stand-in for a U-Net: depends on the whole patch."""
    patch = canvas.patch_of(number)
    estimate: np.ndarray = np.tanh(patch.latents + patch.latents.mean())[:, patch.owned]
    return estimate


@settings(max_examples=25)
@given(
    st.integers(2, 8), st.integers(2, 8),
    st.sampled_from(["jittered", "random", "aligned", "multidiffusion", "diffcollage"]),
    st.sampled_from(SOLVERS), st.randoms(use_true_random=False),
)  # fmt: skip
def test_order_of_arrival_changes_nothing(  # type: ignore[no-untyped-def]
    rows: int, columns: int, rule: str, solver: str, shuffler
) -> None:
    one, other = (make(8 * (rows // 2) + 8, 8 * columns, rule, solver=solver) for _ in range(2))
    while not one.finished:
        numbers = list(range(len(one.cover)))
        for number in numbers:
            one.write(number, smear(one, number))
        one.advance()
        shuffler.shuffle(numbers)
        for number in numbers:
            other.write(number, smear(other, number))
        other.advance()
    assert np.array_equal(one.latents, other.latents)


def test_time_state_follows_the_patches() -> None:
    """L is t + 1 where a pixel waits and t where it is written; uniform when the step is over."""
    canvas = make(20, 28)
    assert (canvas.time_state == 4).all()
    for number in range(len(canvas.cover)):
        assert not canvas.full
        with pytest.raises(AssertionError, match="every pixel has its estimate"):
            canvas.advance()
        canvas.write(number, smear(canvas, number))
        written = canvas.cover.owner <= number
        assert (canvas.time_state[written] == 3).all()
        assert (canvas.time_state[~written] == 4).all()
    assert canvas.full
    canvas.advance()
    assert canvas.step == 1
    assert not canvas.full


def test_patches_of_a_step_read_the_same_latents() -> None:
    canvas = make(20, 20)
    before = [canvas.patch_of(number).latents for number in range(len(canvas.cover))]
    for number in range(len(canvas.cover)):
        assert np.array_equal(canvas.patch_of(number).latents, before[number])
        canvas.write(number, smear(canvas, number))


def test_a_pixel_is_written_once() -> None:
    canvas = make(20, 20)
    canvas.write(0, smear(canvas, 0))
    with pytest.raises(AssertionError, match="written once"):
        canvas.write(0, smear(canvas, 0))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_names_step_and_patch(value: float) -> None:
    canvas = make(40, 40)
    estimate = smear(canvas, 1)
    estimate[0, 0] = value
    with pytest.raises(NonFiniteError, match="step 1 of 4, patch 1"):
        canvas.write(1, estimate)


def test_images_begin_differently_and_repeat() -> None:
    assert np.array_equal(make(9, 9).latents, make(9, 9).latents)
    assert not np.array_equal(make(9, 9).latents, make(9, 9, index=1).latents)
    assert any(
        not np.array_equal(make(40, 40).cover.boxes, make(40, 40, index=k).cover.boxes) for k in range(1, 6)
    )


@pytest.mark.parametrize("rule", ["multidiffusion", "diffcollage"])
def test_weighted_covers_reach_the_next_time_where_all_their_patches_are_in(rule: str) -> None:
    canvas = make(24, 32, rule)
    for number in range(len(canvas.cover) - 1):
        canvas.write(number, smear(canvas, number))
        with pytest.raises(AssertionError, match="written once"):
            canvas.write(number, smear(canvas, number))
        assert set(np.unique(canvas.time_state)) <= {3, 4}
    assert (canvas.time_state == 4).any()
    canvas.write(len(canvas.cover) - 1, smear(canvas, len(canvas.cover) - 1))
    assert (canvas.time_state == 3).all()


def test_a_wide_patch_where_there_is_noise_and_room() -> None:
    canvas = make(20, 40)
    sides = []
    while not canvas.finished:
        sides.append(canvas.cover.shape(0))
        fill(canvas, 1)
    assert sides == [(16, 16), (16, 16), (8, 8), (8, 8)]
    assert make(15, 40).cover.shape(0) == (8, 8)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_snapshot_goes_on_as_if_nothing_had_happened(solver: str) -> None:
    """It holds the solver's history: without it a multistep solver would take another path."""
    whole, other = (make(20, 150, solver=solver, steps=8) for _ in range(2))
    fill(whole, 3)
    arrays, numbers = whole.state()
    arrays = {name: array.copy() for name, array in arrays.items()}
    fill(whole, 5)
    other.restore(arrays, json.loads(json.dumps(numbers)))
    assert (other.time_state == 5).all()
    fill(other, 5)
    assert np.array_equal(whole.latents, other.latents)


def test_a_snapshot_is_of_whole_steps() -> None:
    canvas = make(40, 40)
    canvas.write(0, smear(canvas, 0))
    with pytest.raises(AssertionError, match="between two steps"):
        canvas.state()


@pytest.mark.parametrize("solver", ["ddim", "sde-dpmsolver++"])
def test_a_crop_of_a_larger_canvas_has_its_noise(solver: str) -> None:
    """y_T and the solver's noise are drawn block by block: a larger canvas changes none of them."""
    small, large = (make(side, side, "aligned", solver=solver) for side in (BLOCK, BLOCK + 16))
    assert np.array_equal(small.latents, large.latents[:, :BLOCK, :BLOCK])
    for canvas in (small, large):
        for number in range(len(canvas.cover)):
            canvas.write(number, np.zeros((2, int(canvas.cover.owned(number).sum())), np.float32))
        canvas.advance()
    assert np.array_equal(small.latents, large.latents[:, :BLOCK, :BLOCK])
    assert not np.array_equal(large.latents[:, :16, :16], large.latents[:, BLOCK:, BLOCK:])


def test_bytes_a_latent_pixel() -> None:
    """At most 16·C + 8 between two steps: latents, noise, history, maps."""
    canvas = make(256, 256, steps=8)
    fill(canvas, 3)
    arrays, _ = canvas.state()
    assert canvas.cover.owner is not None
    held = [*arrays.values(), canvas.noise, canvas.label_map, canvas.time_state, canvas.cover.owner]
    assert sum(array.nbytes for array in held) / 256**2 <= 16 * 2 + 8


@pytest.mark.parametrize("solver", SOLVERS)
def test_pieces_of_any_size_stepped_side_by_side_are_the_same(
    solver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make(BLOCK + 7, 2 * BLOCK + 13, solver=solver)
    monkeypatch.setattr("diffgen.sampling.canvas.MANY_PIXELS", 1)
    monkeypatch.setattr("diffgen.sampling.canvas.PIECE_BYTES", 1)
    other = make(BLOCK + 7, 2 * BLOCK + 13, solver=solver)
    assert (len(one.pieces), len(other.pieces)) == (2, 6)
    for canvas in (one, other):
        fill(canvas, canvas.steps)
    assert (one.latents == other.latents).all()
    with pytest.raises(ValueError, match="6 pieces instead of 2"):
        one.restore(*make(BLOCK + 7, 2 * BLOCK + 13, solver=solver).state())
