"""The autoencoder is trained before the models that stand on it, goes on where it was, and is theirs."""

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from diffgen import config
from diffgen.data.stream import Patches
from diffgen.errors import UserError
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.models.conv_autoencoder import ConvAutoencoder
from diffgen.training.launch import launch, launch_autoencoder
from diffgen.training.restoration import CropSource, Restoration
from tests.conftest import TINY
from tests.data import prepared

SMALL = {
    "autoencoder": {"kind": "conv", "factor": 4, "channels": 4},
    "training": {
        "autoencoder": {
            "steps": 4,
            "batch": 4,
            "checkpoint_every": 2,
            "sample_every": 4,
            "crop": 16,
            "widths": [8],
            "encoder_blocks": [1],
            "decoder_blocks": [1],
            "feature_weight": 0.0,
        }
    },
}


@pytest.fixture(scope="module")
def settings() -> config.Settings:
    return config.validate(config.merge(TINY, SMALL))


@pytest.fixture(scope="module")
def data(settings: config.Settings, labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared.make(tmp_path_factory.mktemp("data"), settings, labels)


def test_it_is_trained_first_and_kept(data: Path, settings: config.Settings, tmp_path: Path) -> None:
    screen = Console(file=io.StringIO(), record=True, width=200)
    made = launch_autoencoder(data, str(tmp_path / "run"), settings, screen, inline=True)
    own = ConvAutoencoder.from_pretrained(made).state_dict()
    told = screen.export_text()
    assert "held-out PSNR" in told
    assert (tmp_path / "run" / "samples" / "autoencoder-0000004.png").exists()
    whole = bundle.load(Path(launch(["mask"], data, str(tmp_path / "run"), settings, screen, inline=True)))
    theirs = whole.codec.model.state_dict()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in own.items())
    with pytest.raises(UserError, match="another --run"):
        launch_autoencoder(data, str(tmp_path / "run"), settings, screen, inline=True)


def test_a_sample_depends_on_seed_step_and_number_alone(data: Path, settings: config.Settings) -> None:
    source = CropSource(Patches(data, "image"), settings)
    torch.manual_seed(0)
    model = ConvAutoencoder(4, 4, (8,), (1,), (1,))
    objective = Restoration(settings.training.autoencoder)
    together, alone = source.batch(3, [0, 1, 2]), source.batch(3, [2])
    assert torch.equal(together.clean[2:], alone.clean)
    torch.testing.assert_close(objective(model, together).samples[2:], objective(model, alone).samples)
    assert not torch.equal(alone.clean, source.batch(4, [2]).clean)
