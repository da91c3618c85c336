from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from diffgen.errors import UserError
from diffgen.sampling.solvers import Solver, SolverName, even_log_snr, log_snr, noise_schedule

NAMES = get_args(SolverName)
SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")


def through(solver: Solver, estimates: list[Tensor], rows: slice = slice(None)) -> Tensor:
    """All steps, from fixed noise (6 rows and columns at most) and with fixed noise in between."""
    shape = estimates[0].shape
    fixed = torch.randn(6, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    y, *drawn = (one[: shape[0], rows, : shape[2]][:, : shape[1]] for one in fixed)
    y, history = y * solver.start_scale, dict[str, Any]()
    for k, estimate in enumerate(estimates):
        noise = drawn[k] if solver.draws_noise else None
        y, history = solver.step(k, estimate, y, history, noise)
    return y


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [2, 15, 20, 50, 1000])
def test_time_steps_are_even_in_log_snr(schedule: str, steps: int) -> None:
    alphas = noise_schedule(1000, schedule, "epsilon").alphas_cumprod.numpy()
    chosen = even_log_snr(alphas, steps)
    assert chosen == sorted(set(chosen), reverse=True)
    assert len(chosen) == steps
    values = log_snr(alphas)[chosen]
    assert steps == 1000 or (values[0] >= -9.1 and values[-1] <= 9.5)
    assert chosen[-1] >= 0
    assert chosen[0] < 1000
    if 2 < steps < 1000:
        gaps = np.diff(values)
        assert np.median(gaps) == pytest.approx((values[-1] - values[0]) / (steps - 1), rel=0.1)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [2, 20, 1000])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "ddim"])
def test_a_schedule_that_ends_in_pure_noise_is_sampled_from_its_end(
    name: str, schedule: str, steps: int
) -> None:
    rescaled = noise_schedule(1000, schedule, "v_prediction", zero_terminal_snr=True)
    chosen = Solver(name, dict(rescaled.config), steps).timesteps
    assert chosen[0] == 999
    assert chosen == sorted(set(chosen), reverse=True)
    assert len(chosen) == steps


@pytest.mark.parametrize(
    ("prediction", "terminal"),
    [
        ("epsilon", False),
        ("v_prediction", False),
        ("v_prediction", True),
        ("sample", False),
        ("sample", True),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_exact_on_a_known_distribution(name: str, prediction: str, terminal: bool) -> None:
    """Data of mean 2 and deviation 0.5 has a closed-form denoiser; the solver must bring it back."""
    schedule = noise_schedule(1000, "squaredcos_cap_v2", prediction, terminal)
    solver = Solver(name, dict(schedule.config), 50)
    torch.manual_seed(0)
    y, history = torch.randn(1, 64, 64) * solver.start_scale, dict[str, Any]()
    for k, t in enumerate(solver.timesteps):
        gamma, sigma = schedule.alphas_cumprod[t].sqrt(), (1 - schedule.alphas_cumprod[t]).sqrt()
        z = y * solver.input_scale(k)
        clean = 2 + 0.25 * gamma / (0.25 * gamma**2 + sigma**2) * (z - gamma * 2)
        noise = (z - gamma * clean) / sigma
        given = {"epsilon": noise, "sample": clean, "v_prediction": gamma * noise - sigma * clean}[prediction]
        fresh = torch.randn_like(y) if solver.draws_noise else None
        y, history = solver.step(k, given, y, history, fresh)
    assert float(y.mean()) == pytest.approx(2, abs=0.03)
    assert float(y.std()) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(
    ("name", "steps"), [("ddim", 30), ("ddim", 600), ("ddim", 1001), ("dpmsolver++", 1001)]
)
def test_steps_that_would_be_wrong_silently_are_refused(name: str, steps: int) -> None:
    with pytest.raises(UserError, match=str(steps)):
        Solver(name, dict(noise_schedule(1000, "linear", "epsilon").config), steps)


def test_latents_are_not_clipped() -> None:
    for name in NAMES:
        config = {**noise_schedule(1000, "linear", "sample").config, "clip_sample": True}
        solver = Solver(name, config, 5)
        y = through(solver, [torch.full((1, 4, 4), 7.0)] * 5)
        assert float(y.mean()) == pytest.approx(7, abs=0.2)


def test_dynamic_thresholding_is_refused() -> None:
    """A quantile of the whole image is nothing that a patch knows."""
    config = {**noise_schedule(1000, "linear", "sample").config, "thresholding": True}
    with pytest.raises(UserError, match="dynamic thresholding"):
        Solver("dpmsolver++", config, 5)


@pytest.mark.parametrize("name", NAMES)
def test_a_piece_of_the_canvas_is_stepped_as_the_whole(name: str) -> None:
    solver, whole = (
        Solver(name, dict(noise_schedule(1000, "linear", "epsilon").config), 5) for _ in range(2)
    )
    estimates = list(torch.randn(5, 2, 6, 6))
    y, pieces = through(whole, estimates), []
    torch.manual_seed(1)
    for rows in (slice(0, 2), slice(2, 6)):
        pieces.append(through(solver, [estimate[:, rows] for estimate in estimates], rows))
    assert torch.equal(torch.cat(pieces, dim=1), y)


def test_even_spacing_in_time() -> None:
    config = dict(noise_schedule(1000, "linear", "epsilon").config)
    assert Solver("dpmsolver++", config, 4, spacing="time").timesteps == [999, 749, 499, 249]
    assert len(set(Solver("unipc", config, 30, spacing="time").timesteps)) == 30


def test_last_step_reaches_the_clean_end() -> None:
    """The paper's code never runs its last DDIM step: here y_0 is the model's own estimate of z_0."""
    for name in NAMES:
        solver = Solver(name, dict(noise_schedule(1000, "squaredcos_cap_v2", "sample").config), 4)
        y = through(solver, [torch.full((1, 4, 4), float(k)) for k in range(4)])
        assert torch.allclose(y, torch.full_like(y, 3.0), atol=0.05)


def test_ddim_draws_noise_only_with_eta() -> None:
    config = dict(noise_schedule(1000, "linear", "epsilon").config)
    assert Solver("ddim", config, 5, eta=1.0).draws_noise
    assert not Solver("ddim", config, 5).draws_noise
    solver, y = Solver("ddim", config, 5, eta=1.0), torch.randn(1, 4, 4)
    stepped = [
        solver.step(0, torch.zeros_like(y), y, {}, torch.full_like(y, value))[0] for value in (0.0, 0.0, 1.0)
    ]
    assert torch.equal(stepped[0], stepped[1])
    assert (stepped[2] > stepped[0]).all()
