import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffgen.sampling.solvers import noise_schedule
from diffgen.training.algorithm import Batch, DiffusionLoss, NoiseLevels, share

SIDES = st.lists(st.sampled_from([8, 16]), min_size=4, max_size=40)


@given(SIDES, st.integers(1, 4), st.one_of(st.none(), st.integers(1, 9)))
def test_every_sample_is_in_one_micro_batch_of_one_worker(
    sides: list[int], workers: int, micro_batch: int | None
) -> None:
    pieces = [share(sides, rank, workers, micro_batch) for rank in range(workers)]
    assert sorted(j for own in pieces for piece in own for j in piece) == list(range(len(sides)))
    for own in pieces:
        assert own, "no worker is idle"
        for piece in own:
            assert len({sides[j] for j in piece}) == 1
            if micro_batch is not None:
                area = sum((sides[j] // min(sides)) ** 2 for j in piece)
                assert area <= max(micro_batch, 4)


@given(SIDES, st.integers(2, 4))
def test_wide_patches_are_dealt_evenly(sides: list[int], workers: int) -> None:
    wide = [sum(sides[j] == 16 for p in share(sides, r, workers, None) for j in p) for r in range(workers)]
    assert max(wide) - min(wide) <= 1


def test_time_steps_are_uniform_and_repeat() -> None:
    levels = NoiseLevels(np.linspace(9, -9, 10))
    drawn = [levels.draw(0, 3, j)[0] for j in range(2000)]
    assert drawn == [levels.draw(0, 3, j)[0] for j in range(2000)]
    counts = torch.bincount(torch.tensor(drawn), minlength=10)
    assert counts.min() > 150
    assert counts.max() < 250


def batch_at(timesteps: list[int]) -> Batch:
    torch.manual_seed(0)
    n = len(timesteps)
    return Batch(torch.randn(n, 1, 4, 4), torch.zeros(n), torch.tensor(timesteps), torch.randn(n, 1, 4, 4))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("min_snr", [None, 5.0])
def test_loss_is_zero_for_the_right_answer(prediction: str, min_snr: float | None) -> None:
    schedule = noise_schedule(1000, "squaredcos_cap_v2", prediction)
    batch = batch_at([100, 900])
    gamma = schedule.alphas_cumprod[batch.timestep].sqrt().view(-1, 1, 1, 1)
    sigma = (1 - gamma**2).sqrt()

    def oracle(noisy: torch.Tensor, timestep: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        del timestep, condition
        torch.testing.assert_close(noisy, gamma * batch.clean + sigma * batch.noise)
        v = gamma * batch.noise - sigma * batch.clean
        return {"epsilon": batch.noise, "sample": batch.clean, "v_prediction": v}[prediction]

    objective = DiffusionLoss(schedule, min_snr)
    assert float(objective(oracle, batch).samples.max()) < 1e-9
    wrong = objective(lambda *_: torch.zeros(2, 1, 4, 4), batch)
    assert float(wrong.samples.min()) > 1e-4
    assert wrong.pixels.shape == (2, 4, 4)


def test_min_snr_weighs_all_predictions_as_one_of_z_0() -> None:
    """A given error of z_0 costs min(SNR, γ) times its square, whatever is predicted."""
    batch, error = batch_at([50, 500, 950]), 0.1
    losses = {}
    for prediction in ("epsilon", "v_prediction", "sample"):
        schedule = noise_schedule(1000, "squaredcos_cap_v2", prediction)
        gamma = schedule.alphas_cumprod[batch.timestep].sqrt().view(-1, 1, 1, 1)
        sigma = (1 - gamma**2).sqrt()
        clean = batch.clean + error
        noisy = gamma * batch.clean + sigma * batch.noise
        noise = (noisy - gamma * clean) / sigma
        told = {"epsilon": noise, "sample": clean, "v_prediction": gamma * noise - sigma * clean}[prediction]
        losses[prediction] = DiffusionLoss(schedule, 5.0)(lambda *_, told=told: told, batch).samples
    snr = (gamma / sigma).flatten() ** 2
    for loss in losses.values():
        torch.testing.assert_close(loss, snr.clamp(max=5) * error**2, rtol=1e-3, atol=1e-6)


def test_a_schedule_that_ends_in_pure_noise_has_finite_weights() -> None:
    schedule = noise_schedule(1000, "squaredcos_cap_v2", "v_prediction", zero_terminal_snr=True)
    assert float(schedule.alphas_cumprod[-1]) == 0
    objective = DiffusionLoss(schedule, 5.0)
    assert bool(torch.isfinite(objective.weight).all())
    assert math.isfinite(float(objective(lambda *_: torch.zeros(1, 1, 4, 4), batch_at([999])).samples))


def test_log_normal_levels_have_the_mean_and_deviation_asked_for() -> None:
    levels = NoiseLevels(np.linspace(9, -9, 1000), normal=(0.3, 1.0))
    drawn = [-levels.log_snr[levels.draw(0, 3, j)[0]] / 2 for j in range(4000)]
    assert np.mean(drawn) == pytest.approx(0.3, abs=0.06)
    assert np.std(drawn) == pytest.approx(1.0, abs=0.06)


def test_a_learned_weight_is_best_where_it_says_the_loss() -> None:
    """samples / exp(u) + u is least at u = log(samples) (Karras et al., 2024, eq. 21)."""
    batch = batch_at([100, 100])
    objective = DiffusionLoss(noise_schedule(1000, "squaredcos_cap_v2", "v_prediction"), learned=True)

    def told(u: float) -> float:
        def unet(*_: object, with_log_loss: bool) -> tuple[torch.Tensor, torch.Tensor]:
            assert with_log_loss
            return torch.zeros_like(batch.clean), torch.full((2,), u)

        return float(objective(unet, batch).descended.sum())

    plain = DiffusionLoss(objective.schedule)(lambda *_: torch.zeros_like(batch.clean), batch).samples
    best = float(plain.mean().log())
    assert told(best) <= min(told(best - 0.2), told(best + 0.2))
