import pytest
import torch

from diffgen.models.autoencoder import LatentCodec
from diffgen.models.conv_autoencoder import ConvAutoencoder


@pytest.fixture
def model() -> ConvAutoencoder:
    torch.manual_seed(0)
    made = ConvAutoencoder(latent_channels=4, widths=(8, 12), encoder_blocks=(1, 1), decoder_blocks=(1, 2))
    for parameter in made.parameters():  # residual branches begin at zero
        parameter.data += 0.05 * torch.randn_like(parameter)
    return made.eval()


def test_shapes_and_size() -> None:
    codec = LatentCodec(ConvAutoencoder(latent_channels=16))
    assert (codec.factor, codec.channels) == (8, 16)
    latents = codec.encode(torch.zeros(2, 3, 32, 48))
    assert latents.shape == (2, 16, 4, 6)
    assert codec.decode(latents).shape == (2, 3, 32, 48)
    assert sum(p.numel() for p in codec.model.parameters()) < 2e6


@torch.no_grad()
def test_nothing_beyond_the_reach_is_seen(model: ConvAutoencoder) -> None:
    reach = model.reach
    latents = torch.randn(1, 4, 3 * reach, 3 * reach)
    changed = latents.clone()
    changed[..., 0] += 1  # the first column
    difference = (model.decode(latents).sample - model.decode(changed).sample).abs().amax(dim=(0, 1, 2))
    assert float(difference[: 8 * 1].max()) > 0
    assert float(difference[8 * (1 + reach) :].max()) == 0
    assert float(difference[8 * reach - 8 : 8 * (1 + reach)].max()) > 0  # and no reach is given away


def test_a_factor_that_widths_do_not_make() -> None:
    with pytest.raises(ValueError, match="factor 16"):
        ConvAutoencoder(factor=16)
