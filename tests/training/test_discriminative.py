import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffgen.sampling.solvers import Solver, noise_schedule
from diffgen.training.algorithm import Batch, DiffusionLoss
from diffgen.training.discriminative import DiscriminativeLoss

SCHEDULE = noise_schedule(1000, "squaredcos_cap_v2", "sample")


class Constant(nn.Module):
    """A model of one number: whatever it sees, that is z_0."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, noisy: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        del timestep, condition
        return self.value.expand_as(noisy)


def batch_of(clean: float, seed: int = 0, count: int = 6) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    steps = torch.randint(1000, (count,), generator=rng)
    noise = torch.randn(count, 1, 4, 4, generator=rng)
    return Batch(torch.full((count, 1, 4, 4), clean), torch.zeros(count, dtype=torch.int64), steps, noise)


def objective(reference: Any, scale: float = 10.0) -> DiscriminativeLoss:
    return DiscriminativeLoss(
        DiffusionLoss(SCHEDULE), reference, Solver("dpmsolver++", SCHEDULE.config, 5), scale
    )


def test_the_reference_itself_cannot_tell() -> None:
    loss = objective(Constant(0.0))(Constant(0.0).train(), batch_of(1.0))
    torch.testing.assert_close(loss.descended, torch.full((6,), 2 * math.log(2)))
    torch.testing.assert_close(loss.samples, torch.ones(6))
    assert loss.pixels.shape == (6, 4, 4)


class Share(Constant):
    """A model that takes a share of what it sees for z_0."""

    def forward(self, noisy: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        del timestep, condition
        return self.value * noisy


def test_what_the_reference_draws_is_its_own() -> None:
    drawn = objective(Constant(0.25)).draw(batch_of(1.0))
    torch.testing.assert_close(drawn, torch.full_like(drawn, 0.25))


def test_draws_repeat_and_depend_on_the_samples_own_noise() -> None:
    of = objective(Share(0.5))
    first, again, other = (of.draw(batch_of(1.0, seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 1e-3


def test_a_sample_is_drawn_alike_in_any_micro_batch() -> None:
    whole, of = batch_of(1.0), objective(Share(0.5))
    part = Batch(whole.clean[2:4], whole.condition[2:4], whole.timestep[2:4], whole.noise[2:4])
    torch.testing.assert_close(of.draw(part), of.draw(whole)[2:4])


@pytest.mark.parametrize("real", [1.0, -0.5])
def test_it_moves_from_what_was_drawn_to_what_is_real_and_the_reference_stays(real: float) -> None:
    reference, model = Constant(0.0), Constant(0.0).train()
    of, optimizer = objective(reference), torch.optim.SGD(model.parameters(), lr=0.02)
    first = float(of(model, batch_of(real)).descended.mean().detach())
    for step in range(60):
        loss = of(model, batch_of(real, step)).descended.mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's is not annotated
        optimizer.step()
    assert float(of(model, batch_of(real)).descended.mean().detach()) < first / 2
    assert float(model.value.detach()) / real > 0.5
    assert float(reference.value) == 0.0
    assert not reference.value.requires_grad


def test_a_larger_scale_stays_nearer_to_the_reference() -> None:
    moved = []
    for scale in (2.0, 50.0):
        model = Constant(0.0).train()
        of, optimizer = objective(Constant(0.0), scale), torch.optim.SGD(model.parameters(), lr=0.05 / scale)
        for step in range(40):
            optimizer.zero_grad()
            of(model, batch_of(1.0, step)).descended.mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        moved.append(float(model.value.detach()))
    assert moved[0] > moved[1] > 0


def test_in_evaluation_it_is_the_plain_loss() -> None:
    model, batch = Constant(0.5).eval(), batch_of(1.0)
    given, plain = objective(Constant(0.0))(model, batch), DiffusionLoss(SCHEDULE)(model, batch)
    assert torch.equal(given.samples, plain.samples)
    assert torch.equal(given.descended, plain.descended)
