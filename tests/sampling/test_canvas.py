import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgen.sampling import covers
from diffgen.sampling.canvas import Canvas, NonFiniteError
from diffgen.sampling.seeds import Purpose
from diffgen.sampling.solvers import Solver, noise_schedule

SCHEDULE = dict(noise_schedule(1000, "squaredcos_cap_v2", "epsilon").config)
PURPOSES = (Purpose.IMAGE_NOISE, Purpose.IMAGE_COVER, Purpose.IMAGE_STEP_NOISE)


def make(height: int, width: int, rule: str = "jittered", index: int = 0, eta: float = 0.0) -> Canvas:
    solver = Solver("ddim" if eta else "dpmsolver++", SCHEDULE, 4 if eta else 3, eta)
    label_map = np.zeros((height, width), np.uint8)
    return Canvas((2, height, width), label_map, 8, covers.rule(rule, 0.25), solver, (7, index), PURPOSES)


def smear(canvas: Canvas, number: int) -> np.ndarray:
    """A stand-in for a U-Net: depends on the whole patch."""
    patch = canvas.patch_of(number)
    return np.tanh(patch.latents + patch.latents.mean())[:, patch.owned]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(8, 30), st.integers(8, 30), st.sampled_from(["jittered", "random"]),
    st.booleans(), st.randoms(use_true_random=False),
)  # fmt: skip
def test_order_of_arrival_changes_nothing(height: int, width: int, rule: str, noisy: bool, shuffler) -> None:  # type: ignore[no-untyped-def]
    one, other = (make(height, width, rule, eta=float(noisy)) for _ in range(2))
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
    assert (canvas.time_state == 3).all()
    for number in range(len(canvas.cover)):
        assert not canvas.full
        with pytest.raises(AssertionError, match="every pixel has its estimate"):
            canvas.advance()
        canvas.write(number, smear(canvas, number))
        written = canvas.cover.owner <= number
        assert (canvas.time_state[written] == 2).all()
        assert (canvas.time_state[~written] == 3).all()
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
    canvas = make(20, 20)
    estimate = smear(canvas, 1)
    estimate[0, 0] = value
    with pytest.raises(NonFiniteError, match="step 1 of 3, patch 1"):
        canvas.write(1, estimate)


def test_images_begin_differently_and_repeat() -> None:
    assert np.array_equal(make(9, 9).latents, make(9, 9).latents)
    assert not np.array_equal(make(9, 9).latents, make(9, 9, index=1).latents)
    assert not np.array_equal(make(40, 40).cover.owner, make(40, 40, index=1).cover.owner)
