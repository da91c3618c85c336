import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgen.sampling.baselines import BaselineRule, Outpainting, WindowSchedule
from diffgen.sampling.canvas import NonFiniteError
from diffgen.sampling.denoise import Conditioning, forwards
from diffgen.sampling.guidance import NONE, Guidance
from diffgen.sampling.loop import sample
from diffgen.sampling.seeds import Purpose
from diffgen.sampling.solvers import Solver, noise_schedule
from tests.sampling import helpers
from tests.sampling.test_canvas import SOLVERS, fill
from tests.sampling.test_denoise import by_label

SCHEDULE = dict(noise_schedule(1000, "squaredcos_cap_v2", "epsilon").config)
STEPS = 4


def make(
    height: int, width: int, solver: str = "dpmsolver++", overlap: float = 0.375, steps: int = STEPS
) -> Outpainting:
    """Windows of 8, though the bundle knows wide patches."""
    return under(np.ones((height, width), np.uint8), solver, overlap, steps)


def under(
    label_map: np.ndarray, solver: str = "dpmsolver++", overlap: float = 0.375, steps: int = STEPS
) -> Outpainting:
    made = Solver(solver, SCHEDULE, steps, eta=float(solver == "ddim"))
    covers = WindowSchedule(
        *label_map.shape,
        helpers.WIDE,
        tuple(made.log_snr),
        BaselineRule("outpaint", 0.0, overlap),
        (7, 0),
        Purpose.IMAGE_COVER,
    )
    return Outpainting(2, label_map, covers, made, (Purpose.IMAGE_NOISE, Purpose.IMAGE_STEP_NOISE))


@settings(max_examples=25)
@given(st.integers(8, 30), st.integers(8, 30), st.floats(0, 0.9))
def test_every_pixel_is_covered_once_and_stays(height: int, width: int, overlap: float) -> None:
    """A pixel is estimated by one window alone, and what is finished no later window changes."""
    canvas = make(height, width, overlap=overlap, steps=2)
    added, steps = np.zeros((height, width), int), 0
    while not canvas.finished:
        (number,) = range(len(canvas.cover))
        box, owned = canvas.cover.box(number), canvas.cover.owned(number)
        assert owned.shape == (8, 8)
        before, done = canvas.latents.copy(), added == 2
        added[box] += owned
        fill(canvas, 1)
        steps += 1
        assert np.array_equal(canvas.latents[:, done], before[:, done])
    assert (added == 2).all()
    assert steps == canvas.steps == 2 * len(canvas.covers.windows)
    assert (canvas.latents != 0).all()


def test_windows_go_row_by_row_up_to_the_border() -> None:
    windows = make(20, 17, overlap=0.375).covers.windows
    assert [tuple(box[:2]) for box in windows.boxes] == [(y, x) for y in (0, 5, 10, 12) for x in (0, 5, 9)]


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_patch_alone_is_what_the_canvas_makes(solver: str) -> None:
    """Without an earlier window nothing is fixed: the same as any cover of a single patch."""
    canvas = make(8, 8, solver)
    alone = helpers.make(2, canvas.label_map, canvas.solver)
    for one in (canvas, alone):
        fill(one, STEPS)
    assert np.array_equal(canvas.latents, alone.latents)


@pytest.mark.parametrize("solver", ["dpmsolver++", "euler", "ddim"])
def test_each_label_is_filled_with_its_own(solver: str) -> None:
    label_map = np.random.default_rng(0).integers(0, 4, (19, 30)).astype(np.uint8)
    (filled,) = sample([under(label_map, solver, steps=8)], by_label, NONE, "per_label", 4)
    assert np.abs(filled - label_map).max() < 0.05


def test_a_window_does_not_depend_on_later_ones() -> None:
    """The first windows of a wider canvas are those of a narrower one, where their grids are the same."""
    narrow, wide = make(8, 18), make(8, 28)
    for canvas in (narrow, wide):
        fill(canvas, canvas.steps)
    assert np.array_equal(narrow.latents, wide.latents[:, :, :18])


def test_a_window_sees_what_is_finished() -> None:
    """Its known pixels are the earlier windows'; its own noise is not theirs."""
    canvas = make(8, 13)
    first = canvas.window.latents.copy()
    fill(canvas, STEPS)
    assert np.array_equal(canvas.window.known[:, :, :3], canvas.latents[:, :, 5:8])
    assert canvas.window.mask.tolist() == [[True] * 3 + [False] * 5] * 8
    assert not np.isclose(canvas.window.latents, first).any()
    same, changed = (make(8, 13) for _ in range(2))
    for other in (same, changed):
        fill(other, STEPS)
    changed.latents[:, :, 5:8] += 1
    for other in (canvas, same, changed):
        fill(other, STEPS)
    assert np.array_equal(canvas.latents, same.latents)
    assert not np.isclose(canvas.latents[:, :, 8:], changed.latents[:, :, 8:]).all()


@pytest.mark.parametrize("guidance", [0.0, 2.0])
@pytest.mark.parametrize("conditioning", ["per_label", "joint"])
def test_forwards_are_known_before(guidance: float, conditioning: Conditioning) -> None:
    """Labels that only finished pixels have are not run."""
    label_map = np.zeros((14, 20), np.uint8)
    label_map[:, :6], label_map[9:, 13:] = 1, 2
    canvas = under(label_map)
    foretold, ran = forwards(label_map, canvas.covers, Guidance(guidance), conditioning), 0

    def count(latents: torch.Tensor, timesteps: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        nonlocal ran
        del timesteps, maps
        ran += len(latents)
        return torch.zeros_like(latents)

    sample([canvas], count, Guidance(guidance), conditioning, 1)
    assert ran == foretold


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("after", [2, 4, 7, 10])
def test_a_snapshot_goes_on_as_if_nothing_had_happened(solver: str, after: int) -> None:
    """In the middle of a window, and between two."""
    whole, other = make(8, 18, solver), make(8, 18, solver)
    fill(whole, after)
    arrays, numbers = whole.state()
    arrays = {name: array.copy() for name, array in arrays.items()}
    fill(whole, whole.steps - after)
    other.restore(arrays, json.loads(json.dumps(numbers)))
    fill(other, other.steps - after)
    assert np.array_equal(whole.latents, other.latents)


def test_the_micro_batch_does_not_matter() -> None:
    label_map = np.random.default_rng(0).integers(0, 4, (13, 18)).astype(np.uint8)
    made = [sample([under(label_map)], by_label, Guidance(1.0), "per_label", size)[0] for size in (1, 3, 8)]
    assert np.array_equal(made[0], made[1])
    assert np.array_equal(made[0], made[2])


def test_not_finite_names_window_step_and_patch() -> None:
    canvas = make(8, 18)
    fill(canvas, STEPS + 1)
    estimate = np.full((2, int(canvas.cover.owned(0).sum())), np.nan, np.float32)
    with pytest.raises(NonFiniteError, match="window 2 of 3, step 2 of 4, patch 0"):
        canvas.write(0, estimate)
