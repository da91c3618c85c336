"""The autoencoder is trained before the models that stand on it, goes on where it was, and is theirs."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from diffgen import config
from diffgen.data.stream import PatchTable
from diffgen.errors import UserError
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.models.conv_autoencoder import ConvAutoencoder
from diffgen.models.critic import Critic
from diffgen.training.autoencoder import new_autoencoder
from diffgen.training.driver import launch, launch_autoencoder
from diffgen.training.loop import DistContext, Hooks, StopRequest, train
from diffgen.training.restoration import CropSource, RestorationLoss, Restorer
from diffgen.training.train_state import Fitting, TrainState
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


def restorer(critic: bool = True) -> Restorer:
    torch.manual_seed(0)
    return Restorer(ConvAutoencoder(4, 4, (8,), (1,), (1,)), Critic((4, 8)) if critic else None)


def test_a_sample_depends_on_seed_step_and_number_alone(data: Path, settings: config.Settings) -> None:
    source = CropSource(PatchTable(data, "image"), settings)
    model = restorer()
    objective = RestorationLoss(settings.training.autoencoder, lambda: 1.0)
    together, alone = source.batch(3, [0, 1, 2]), source.batch(3, [2])
    assert torch.equal(together.clean[2:], alone.clean)
    torch.testing.assert_close(objective(model, together).samples[2:], objective(model, alone).samples)
    assert not torch.equal(alone.clean, source.batch(4, [2]).clean)


def test_patches_smaller_than_a_crop_are_left_out(data: Path) -> None:
    def source(side: int) -> CropSource:
        tree = config.merge(TINY, {"training": {"autoencoder": {"crop": side}}})
        return CropSource(PatchTable(data, "image", "test", least=side), config.validate(tree))

    assert source(64).batch(0, range(30)).clean.shape == (30, 3, 64, 64)
    with pytest.raises(UserError, match="crop 68: the patches have 64 pixels a side"):
        source(68)


def test_the_critic_is_heard_after_its_share_of_the_training(data: Path, settings: config.Settings) -> None:
    batch = CropSource(PatchTable(data, "image"), settings).batch(0, [0, 1])
    part, model = settings.training.autoencoder, restorer()

    def gradient(progress: float, of: config.AutoencoderTraining = part) -> torch.Tensor:
        model.zero_grad()
        RestorationLoss(of, lambda: progress)(model, batch).descended.sum().backward()
        return model.autoencoder.decoder[-2].weight.grad.clone()

    without = part.model_copy(update={"critic_weight": 0.0})
    before, after = part.texture_from - 0.01, part.texture_from
    torch.testing.assert_close(gradient(before), gradient(before, without))
    assert not torch.allclose(gradient(after), gradient(after, without))


def test_it_resumes_with_its_critic(data: Path, settings: config.Settings, tmp_path: Path) -> None:
    source = CropSource(PatchTable(data, "image"), settings)
    part = settings.training.autoencoder

    def trained(trainee: TrainState, until: int) -> TrainState:
        objective = RestorationLoss(part, lambda: trainee.progress)
        hooks = Hooks(poll=lambda: StopRequest(stop=trainee.step == until - 1))
        fitting = Fitting(trainee, objective, source, source, lambda _: np.zeros((1, 1, 3), np.uint8))
        train(fitting, trainee.unet, DistContext(), hooks)
        return trainee

    whole = trained(TrainState(restorer(), part), 4)
    trained(TrainState(restorer(), part), 2).write(tmp_path)
    resumed = TrainState(Restorer(ConvAutoencoder(4, 4, (8,), (1,), (1,)), Critic((4, 8))), part)
    resumed.read(tmp_path)
    assert resumed.step == 2
    theirs = trained(resumed, 4).unet.state_dict()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in whole.unet.state_dict().items())
    assert any(name.startswith("critic") for name in theirs)


def test_a_decoder_is_trained_on_for_latents_that_stay(
    data: Path, settings: config.Settings, tmp_path: Path
) -> None:
    screen = Console(file=io.StringIO())
    first = launch_autoencoder(data, str(tmp_path / "first"), settings, screen, inline=True)
    changes = {"autoencoder": {"source": first}, "training": {"autoencoder": {"decoder_only": True}}}
    onward = config.validate(config.merge(settings.model_dump(mode="json"), changes))
    second = launch_autoencoder(data, str(tmp_path / "second"), onward, screen, inline=True)
    before, after = (ConvAutoencoder.from_pretrained(made).state_dict() for made in (first, second))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder"}


def test_a_decoder_alone_needs_a_source(settings: config.Settings) -> None:
    alone = config.merge(
        settings.model_dump(mode="json"), {"training": {"autoencoder": {"decoder_only": True}}}
    )
    with pytest.raises(UserError, match=r"needs autoencoder\.source"):
        new_autoencoder(config.validate(alone))
