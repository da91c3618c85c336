import numpy as np
import pytest
import torch

from diffgen.errors import UserError
from diffgen.sampling.solvers import Solver, even_log_snr, log_snr, noise_schedule

SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")


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


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", ["ddim", "dpmsolver++"])
def test_exact_on_a_known_distribution(name: str, prediction: str) -> None:
    """Data of mean 2 and deviation 0.5 has a closed-form denoiser; the solver must bring it back."""
    schedule = noise_schedule(1000, "squaredcos_cap_v2", prediction)
    solver = Solver(name, dict(schedule.config), 50)
    torch.manual_seed(0)
    y = torch.randn(1, 64, 64)
    for t in solver.timesteps:
        gamma, sigma = schedule.alphas_cumprod[t].sqrt(), (1 - schedule.alphas_cumprod[t]).sqrt()
        clean = 2 + 0.25 * gamma / (0.25 * gamma**2 + sigma**2) * (y - gamma * 2)
        noise = (y - gamma * clean) / sigma
        given = {"epsilon": noise, "sample": clean, "v_prediction": gamma * noise - sigma * clean}[prediction]
        y = solver.step(given, t, y)
    assert float(y.mean()) == pytest.approx(2, abs=0.03)
    assert float(y.std()) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(
    ("name", "steps"), [("ddim", 30), ("ddim", 600), ("ddim", 1001), ("dpmsolver++", 1001)]
)
def test_steps_that_would_be_wrong_silently_are_refused(name: str, steps: int) -> None:
    with pytest.raises(UserError, match=str(steps)):
        Solver(name, dict(noise_schedule(1000, "linear", "epsilon").config), steps)


def test_latents_are_not_clipped() -> None:
    for name in ("ddim", "dpmsolver++"):
        config = {
            **noise_schedule(1000, "linear", "sample").config,
            "clip_sample": True,
            "thresholding": True,
        }
        solver = Solver(name, config, 5)
        y = torch.randn(1, 4, 4)
        for t in solver.timesteps:
            y = solver.step(torch.full((1, 4, 4), 7.0), t, y)
        assert float(y.mean()) == pytest.approx(7, abs=0.2)


def test_last_step_reaches_the_clean_end() -> None:
    """The paper's code never runs its last DDIM step: here y_0 is the model's own estimate of z_0."""
    for name in ("ddim", "dpmsolver++"):
        solver = Solver(name, dict(noise_schedule(1000, "squaredcos_cap_v2", "sample").config), 4)
        y = torch.randn(1, 4, 4)
        for k, t in enumerate(solver.timesteps):
            y = solver.step(torch.full((1, 4, 4), float(k)), t, y)
        assert torch.allclose(y, torch.full_like(y, 3.0), atol=0.05)


def test_ddim_draws_noise_only_with_eta() -> None:
    config = dict(noise_schedule(1000, "linear", "epsilon").config)
    assert Solver("ddim", config, 5, eta=1.0).draws_noise
    assert not Solver("ddim", config, 5).draws_noise
    solver, y = Solver("ddim", config, 5, eta=1.0), torch.randn(1, 4, 4)
    t = solver.timesteps[0]
    stepped = [solver.step(torch.zeros_like(y), t, y, torch.full_like(y, value)) for value in (0.0, 0.0, 1.0)]
    assert torch.equal(stepped[0], stepped[1])
    assert (stepped[2] > stepped[0]).all()
