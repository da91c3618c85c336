"""What guidance adds to strength and contrast is taken back, whatever the network predicts."""

import math

import pytest
import torch

from diffgen.sampling.guidance import Guidance, clean_from

LOG_SNR = 1.3
GAMMA, SIGMA = (1 / (1 + math.exp(-LOG_SNR))) ** 0.5, (1 / (1 + math.exp(LOG_SNR))) ** 0.5
ESTIMATES = {
    "v_prediction": lambda clean, noise: GAMMA * noise - SIGMA * clean,
    "epsilon": lambda _clean, noise: noise,
    "sample": lambda clean, _noise: clean,
}


@pytest.fixture(params=list(ESTIMATES))
def case(request: pytest.FixtureRequest) -> tuple[str, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What is predicted; noisy latents (2, 9, 9); an estimate, and one that knows no label."""
    torch.manual_seed(0)
    clean, noise, other = (torch.randn(2, 9, 9, dtype=torch.float64) for _ in range(3))
    latents = GAMMA * clean + SIGMA * noise
    blurred = 0.6 * clean + 0.1 * other
    given, away = (ESTIMATES[request.param](z, (latents - GAMMA * z) / SIGMA) for z in (clean, blurred))
    return request.param, latents, given, away


def clean_of(kind: str, latents: torch.Tensor, estimate: torch.Tensor) -> torch.Tensor:
    of_latents, of_estimate = clean_from(kind, LOG_SNR)
    return of_latents * latents + of_estimate * estimate


def test_clean_latents_of_an_estimate(case: tuple[str, torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    kind, latents, given, _ = case
    torch.manual_seed(0)
    assert torch.allclose(clean_of(kind, latents, given), torch.randn(2, 9, 9, dtype=torch.float64))


def test_rescaled_guidance_has_the_spread_of_the_estimate(
    case: tuple[str, torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    kind, latents, given, away = case
    wanted = clean_of(kind, latents, given)
    spreads = []
    for rescale in (0.0, 0.5, 1.0):
        guidance = Guidance(2.0, rescale=rescale, prediction=kind)
        found = clean_of(kind, latents, guidance.apart(given, away, latents, LOG_SNR))
        spreads.append((found.std((1, 2)) / wanted.std((1, 2))).mean().item())
    assert spreads[0] > spreads[1] > spreads[2] == pytest.approx(1)
    assert torch.allclose(found.mean((1, 2)), wanted.mean((1, 2)))
    assert not torch.allclose(found, wanted), "it is guided all the same"


def test_without_rescaling_it_is_eq_2(case: tuple[str, torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    kind, latents, given, away = case
    found = Guidance(1.5, prediction=kind).apart(given, away, latents, LOG_SNR)
    assert torch.equal(found, 2.5 * given - 1.5 * away)
