"""Real latents that are noised and drawn from there come back where the network knows them."""

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import noise_levels
from diffgen.sampling import loop
from diffgen.sampling.canvas import Canvas
from diffgen.sampling.covers import CoverRule, CoverSchedule
from diffgen.sampling.guidance import NONE
from diffgen.sampling.seeds import Purpose
from diffgen.sampling.solvers import Solver, noise_schedule

SIDE = 8


@pytest.mark.parametrize("step", [2, 5, 7])
def test_a_network_that_knows_the_answer_gives_it_back_from_any_step(step: int) -> None:
    schedule = noise_schedule(1000, "squaredcos_cap_v2", "sample")
    solver = Solver("dpmsolver++", dict(schedule.config), 9)
    clean = np.random.default_rng(0).standard_normal((2, SIDE, SIDE)).astype(np.float32)
    covers = CoverSchedule(
        SIDE, SIDE, ((None, SIDE),), tuple(solver.log_snr), CoverRule("aligned", 0.0, 0.0), (0, 0),
        Purpose.IMAGE_COVER,
    )  # fmt: skip
    purposes = Purpose.IMAGE_NOISE, Purpose.IMAGE_STEP_NOISE
    canvas = Canvas(2, np.ones((SIDE, SIDE), np.uint8), covers, solver, purposes)
    begun = noise_levels.begin(canvas, clean, step)
    asked = []

    def oracle(noisy: Tensor, timestep: Tensor, labels: Tensor) -> Tensor:
        del labels
        if not asked:
            alpha = float(schedule.alphas_cumprod[int(timestep[0])])
            left = noisy[0].numpy() - alpha**0.5 * clean
            assert np.std(left) == pytest.approx((1 - alpha) ** 0.5, rel=0.25)
        asked.append(int(timestep[0]))
        return torch.from_numpy(clean)[None].expand(len(noisy), -1, -1, -1)

    (done,) = loop.sample([begun], oracle, NONE, "joint", 1)
    np.testing.assert_allclose(done, clean, atol=1e-5)
    assert asked == solver.timesteps[step:]


def test_the_same_pictures_differ_by_nothing_and_others_by_much() -> None:
    rng = np.random.default_rng(0)
    real = rng.integers(0, 255, (24, 32, 32, 3), np.uint8)
    judge = noise_levels.Judge(real[12:], 12)
    kid, precision, recall = judge(real[:12])
    assert len(kid) > 100
    grey = np.full_like(real[:12], 128)
    worse, none, _ = judge(grey)
    assert worse[0] > kid[0] + 0.1
    assert none < precision + 1e-9
    assert 0 <= recall <= 1
