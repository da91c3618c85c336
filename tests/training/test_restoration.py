"""The autoencoder and its critic: each loss reaches one of the two, and both are kept."""

from pathlib import Path

import pytest
import torch

from diffgen.models.conv_autoencoder import ConvAutoencoder
from diffgen.models.critic import Critic
from diffgen.training.restoration import Restorer


@pytest.fixture
def restorer() -> Restorer:
    torch.manual_seed(0)
    return Restorer(ConvAutoencoder(4, 4, (8,), (1,), (1,)), Critic((4, 8)))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(
    ("loss", "reached"), [("persuasion", "autoencoder"), ("likeness", "autoencoder"), ("criticism", "critic")]
)
def test_each_loss_reaches_one_of_the_two(
    restorer: Restorer, images: torch.Tensor, loss: str, reached: str
) -> None:
    judged = getattr(restorer(images).judgement, loss)
    assert judged.shape == (2,)
    judged.sum().backward()
    touched = {name.split(".")[0] for name, p in restorer.named_parameters() if p.grad is not None}
    assert touched == {reached}


def test_a_critic_learns_to_tell_decoded_from_real(restorer: Restorer, images: torch.Tensor) -> None:
    optimizer = torch.optim.Adam(restorer.critic.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = restorer(images).judgement.criticism.mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.2 < losses[0]


def test_in_evaluation_there_is_no_judge(restorer: Restorer, images: torch.Tensor) -> None:
    restored = restorer.eval()(images, coarse=True)
    assert restored.coarse is None
    assert restored.judgement is None


def test_what_is_kept_is_read_again_and_the_autoencoder_alone(
    restorer: Restorer, images: torch.Tensor, tmp_path: Path
) -> None:
    restorer.save_pretrained(tmp_path)
    again = Restorer.from_pretrained(tmp_path, use_safetensors=True, low_cpu_mem_usage=False)
    assert all(torch.equal(again.state_dict()[name], p) for name, p in restorer.state_dict().items())
    alone = ConvAutoencoder.from_pretrained(tmp_path, use_safetensors=True, low_cpu_mem_usage=False)
    assert torch.equal(alone(images)[1], restorer.autoencoder(images)[1])


def test_without_a_critic_none_is_kept(images: torch.Tensor, tmp_path: Path) -> None:
    Restorer(ConvAutoencoder(4, 4, (8,), (1,), (1,))).save_pretrained(tmp_path)
    again = Restorer.from_pretrained(tmp_path, use_safetensors=True, low_cpu_mem_usage=False)
    assert again.critic is None
    assert again(images).judgement is None


def test_means_of_latents_decode_to_half_the_side(restorer: Restorer, images: torch.Tensor) -> None:
    assert restorer(images, coarse=True).coarse.shape == (2, 3, 8, 8)
