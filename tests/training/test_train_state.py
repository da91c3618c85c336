import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from diffgen import config
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.training.train_state import STATE, TrainState, power_exponent


@pytest.fixture
def made(tiny: config.Settings, labels: Labels) -> TrainState:
    torch.manual_seed(0)
    return TrainState(bundle.new_mask_unet(tiny, labels, 3), config.ModelTraining(steps=50, batch=4))


def test_optimiser_state_is_not_unpickled(made: TrainState, tmp_path: Path) -> None:
    """Promise 8: a state file that would run code is refused."""
    made.write(tmp_path)
    mark = tmp_path / "it ran"
    torch.save({"optimizer": Evil(str(mark))}, tmp_path / STATE)
    with pytest.raises(pickle.UnpicklingError):
        made.read(tmp_path)
    assert not mark.exists()


class Evil:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("length", [0.05, 0.1, 0.2])
def test_a_power_function_average_has_its_relative_width(
    tiny: config.Settings, labels: Labels, length: float
) -> None:
    """σ_rel of Karras et al. (2024): deviation of the averaged steps over the length of the training."""
    gamma = power_exponent(length)
    assert np.sqrt(gamma + 1) / (gamma + 2) / np.sqrt(gamma + 3) == pytest.approx(length)
    part = config.ModelTraining(steps=9, ema_length=length)
    made = TrainState(bundle.new_mask_unet(tiny, labels, 3), part)
    steps = 4000
    decays = np.array([made.ema.get_decay(step) for step in range(1, steps + 1)])
    # What the weights of step s count in the end.
    weights = (1 - decays) * np.append(np.cumprod(decays[::-1])[::-1][1:], 1.0)
    weights /= weights.sum()
    at = np.arange(1, steps + 1) / steps
    width = np.sqrt((weights * at**2).sum() - (weights * at).sum() ** 2)
    assert width == pytest.approx(length, rel=0.03)


def test_the_average_moves_every_so_many_steps(tiny: config.Settings, labels: Labels) -> None:
    part = config.ModelTraining(steps=50, ema_every=10)
    made = TrainState(bundle.new_mask_unet(tiny, labels, 3), part)
    for _ in range(25):
        for parameter in made.unet.parameters():
            parameter.grad = torch.ones_like(parameter)
        made.advance()
    assert made.ema.optimization_step == 2


@pytest.mark.parametrize("steps", [1, 2, 9, 19, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
def test_the_rate_rises_to_its_peak_and_falls(steps: int, warmup: float) -> None:
    made = TrainState(torch.nn.Linear(1, 1), config.ModelTraining(steps=steps, lr=0.5, warmup=warmup))
    rates = []
    for _ in range(steps):
        for parameter in made.unet.parameters():
            parameter.grad = torch.zeros_like(parameter)
        rates.append(made.advance())
    assert max(rates) <= 0.5
    if steps > 9 and warmup < 1:
        assert max(rates) == pytest.approx(0.5, rel=0.05)
        assert rates[-1] < 0.1


@pytest.mark.parametrize("lr", [1e-4, 5e-5])
def test_a_checkpoint_is_gone_on_with_by_another_rate(
    tiny: config.Settings, labels: Labels, tmp_path: Path, lr: float
) -> None:
    """The schedule is that of the new rate from there on; the state of Adam is the old one."""

    def trainee(lr: float) -> TrainState:
        torch.manual_seed(0)
        return TrainState(
            bundle.new_mask_unet(tiny, labels, 3), config.ModelTraining(steps=20, batch=4, lr=lr)
        )

    def steps(made: TrainState, count: int) -> list[float]:
        rates = []
        for _ in range(count):
            for parameter in made.unet.parameters():
                parameter.grad = torch.ones_like(parameter)
            rates.append(made.advance())
        return rates

    first, whole, again = trainee(1e-4), trainee(lr), trainee(lr)
    steps(first, 8)
    first.write(tmp_path)
    again.read(tmp_path)
    assert again.step == 8
    assert steps(again, 12) == pytest.approx(steps(whole, 20)[8:])
    counts = {state["step"].item() for state in again.optimizer.state.values()}
    assert counts == {20}


def clocked(linear: torch.nn.Module, elapsed: list[float]) -> tuple[TrainState, list[float]]:
    """A training of 10 s of at most 1000 steps, after steps that end at these seconds; their rates."""
    made = TrainState(linear, config.ModelTraining(steps=1000, lr=0.5, warmup=0.2), max_seconds=10.0)
    rates = []
    for seconds in elapsed:
        for parameter in linear.parameters():
            parameter.grad = torch.zeros_like(parameter)
        made.elapsed = seconds
        rates.append(made.advance())
    return made, rates


def test_the_rate_decays_by_the_time_that_is_left() -> None:
    made, rates = clocked(torch.nn.Linear(1, 1), [0.5 * n for n in range(1, 20)])
    assert max(rates) == pytest.approx(0.5, rel=0.01), "the peak is at a fifth of the time"
    assert rates.index(max(rates)) == 4
    assert rates[-1] < 0.02
    assert not made.finished
    made, _ = clocked(torch.nn.Linear(1, 1), [4.0, 5.0])
    assert made.foreseen == 4
    made, _ = clocked(torch.nn.Linear(1, 1), [5.0, 10.5])
    assert made.finished
    assert made.step == made.foreseen == 2
    assert made.optimizer.param_groups[0]["lr"] < 1e-4


def test_elapsed_time_is_in_the_checkpoint_and_fused_is_the_device_s(
    tiny: config.Settings, labels: Labels, tmp_path: Path
) -> None:
    def make(seconds: float) -> TrainState:
        return TrainState(
            bundle.new_mask_unet(tiny, labels, 3), config.ModelTraining(steps=50, batch=4), seconds
        )

    first, again = make(10.0), make(20.0)
    for parameter in first.unet.parameters():
        parameter.grad = torch.ones_like(parameter)
    first.elapsed = 10.0
    first.advance()
    first.optimizer.param_groups[0]["fused"] = True  # as a GPU's is
    first.write(tmp_path)
    again.read(tmp_path)
    assert (again.elapsed, again.step, again.finished) == (10.0, 1, False)
    assert first.finished
    assert again.optimizer.param_groups[0]["fused"] is None
    again.optimizer.step()
