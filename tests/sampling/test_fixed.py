import numpy as np
import pytest

from diffgen.sampling.baselines import FixedCanvas
from diffgen.sampling.covers import CoverRule, CoverSchedule, RuleName
from diffgen.sampling.seeds import Purpose
from diffgen.sampling.solvers import Solver, noise_schedule
from tests.sampling.test_canvas import SOLVERS, fill

SCHEDULE = noise_schedule(1000, "squaredcos_cap_v2", "epsilon")
MASK = np.random.default_rng(0).random((20, 150)) < 0.4  # any pixels, over two blocks
KNOWN = np.random.default_rng(1).standard_normal((2, *MASK.shape)).astype(np.float32)
STEPS = 5


def make(solver: str, known: np.ndarray, rule: RuleName = "jittered", first: int = 0) -> FixedCanvas:
    made = Solver(solver, dict(SCHEDULE.config), STEPS, eta=float(solver == "ddim"))
    covers = CoverSchedule(
        *MASK.shape,
        ((None, 8),),
        tuple(made.log_snr),
        CoverRule(rule, 0.25, 0.25),
        (7, 0),
        Purpose.IMAGE_COVER,
    )
    purposes = (Purpose.IMAGE_NOISE, Purpose.IMAGE_STEP_NOISE)
    return FixedCanvas(known, MASK, first, 2, np.zeros(MASK.shape, np.uint8), covers, made, purposes)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("rule", ["jittered", "random"])
def test_known_pixels_come_out_as_they_are_known(solver: str, rule: RuleName) -> None:
    canvas = make(solver, KNOWN, rule)
    fill(canvas, STEPS)
    assert np.array_equal(canvas.latents[:, MASK], KNOWN[:, MASK])
    assert not np.isclose(canvas.latents[:, ~MASK], KNOWN[:, ~MASK]).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_network_sees_them_as_the_forward_process_makes_them(solver: str) -> None:
    """z_t = γ_t z_0 + σ_t ε (Alg. 1, line 4), whatever the solver holds; ε is that of y_T in every step."""
    canvas, seen = make(solver, KNOWN), []
    while not canvas.finished:
        alpha = float(SCHEDULE.alphas_cumprod[canvas.solver.timesteps[canvas.step]])
        z = canvas.latents[:, MASK] * canvas.solver.input_scale(canvas.step)
        seen.append((z - alpha**0.5 * KNOWN[:, MASK]) / (1 - alpha) ** 0.5)
        fill(canvas, 1)
    assert np.allclose(seen, seen[0], atol=2e-3)
    assert seen[0].mean() == pytest.approx(0, abs=0.1)
    assert seen[0].std() == pytest.approx(1, abs=0.1)


def test_what_is_not_known_is_not_read() -> None:
    """Values outside the mask may be anything; those inside change what is around them."""
    canvases = [make("dpmsolver++", known) for known in (KNOWN, np.where(MASK, KNOWN, np.nan), KNOWN + 1)]
    for canvas in canvases:
        fill(canvas, STEPS)
    one, other, moved = (canvas.latents for canvas in canvases)
    assert np.array_equal(one, other)
    assert not np.isclose(one[:, ~MASK], moved[:, ~MASK]).all()


@pytest.mark.parametrize("solver", ["dpmsolver++", "sde-dpmsolver++"])
def test_a_snapshot_needs_no_more_than_without(solver: str) -> None:
    whole, other = make(solver, KNOWN), make(solver, KNOWN)
    fill(whole, 2)
    arrays, numbers = whole.state()
    other.restore({name: array.copy() for name, array in arrays.items()}, numbers)
    for canvas in (whole, other):
        fill(canvas, STEPS - 2)
    assert np.array_equal(whole.latents, other.latents)


def test_streams_that_begin_at_another_step_are_others() -> None:
    one, other = (make("sde-dpmsolver++", KNOWN, first=first) for first in (0, STEPS))
    both = np.stack([one.latents[:, ~MASK].reshape(-1), other.latents[:, ~MASK].reshape(-1)])
    assert np.corrcoef(both)[0, 1] == pytest.approx(0, abs=0.1)
