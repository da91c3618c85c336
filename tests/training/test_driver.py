"""The real thing on Ray Train: two DDP workers, a bundle, a resume, and what is refused."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from diffgen import config
from diffgen.errors import UserError
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.models.unet import ImageUNet
from diffgen.training.driver import launch
from diffgen.training.train_state import STATE
from tests.conftest import TINY
from tests.data import prepared


def settings(**training: object) -> config.Settings:
    """Those of the tests, with stored latents and crops by noise."""
    more = {"autoencoder": {"latents": "stored", "dihedral": 1}, "image_model": {"context": "wide"}}
    return config.validate(config.merge(TINY, {"training": training, **more}))


@pytest.fixture(scope="module")
def data(tiny: config.Settings, labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared.make(tmp_path_factory.mktemp("data"), tiny, labels)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_two_workers_make_a_bundle_and_another_run_starts_from_it(data: Path, tmp_path: Path) -> None:
    """On stored latents, in crops of two sizes, a step in several micro-batches."""
    console, run = Console(record=True, width=200), str(tmp_path / "run")
    many = {"image": {**TINY["training"]["image"], "batch": 8, "micro_batch": 2, "keep_history": True}}
    made = Path(launch(["image"], data, run, settings(workers=2, **many), console))
    loaded = bundle.load(made)
    assert loaded.image_unet is not None
    assert loaded.mask_unet is None
    assert loaded.facts.patch_by_log_snr == ((-2.0, 16), (None, 8))
    assert "new, 4 steps, 2 worker(s)" in console.export_text(clear=False)
    assert list((tmp_path / "run" / "tensorboard" / "image").iterdir())
    assert (tmp_path / "run" / "samples" / "image-0000004.png").exists()
    assert "not trained" in (made / "README.md").read_text()
    assert len(list((tmp_path / "run" / "best" / "image").glob(f"step-*/{STATE}"))) == 1
    assert {path.name for path in (tmp_path / "run" / "history" / "image").iterdir()} == {
        "step-0000002",
        "step-0000004",
    }
    tags = scalars(tmp_path / "run" / "tensorboard" / "image")
    assert {"train/loss", "train/held_out_loss", "train/tflop_per_s", "train/data_wait_share"} <= tags
    assert {"train/label_share_seen/stroma", "train/label_share_of_data/stroma"} <= tags

    before = loaded.image_unet.state_dict()
    with pytest.raises(UserError, match=r"training\.image\.steps 4 → 9; choose another --run"):
        launch(["image"], data, run, settings(image={**many["image"], "steps": 9}), console)

    other = settings(image={"steps": 1, "batch": 4, "lr": 1e-9, "warmup": 0.0})
    there = launch(["image"], data, str(tmp_path / "other"), other, console, str(made), inline=True)
    started = bundle.load(Path(there))
    assert f"image model: starts from {made}" in console.export_text()
    assert started.image_unet is not None
    for name, tensor in started.image_unet.state_dict().items():
        torch.testing.assert_close(tensor, before[name], atol=1e-6, rtol=0)


def scalars(folder: Path) -> set[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return set(events.Tags()["scalars"])


@pytest.mark.usefixtures("ray_cluster")
def test_more_than_the_machine_has_is_said(data: Path, tmp_path: Path) -> None:
    many = settings(workers=4).model_copy(update={"threads": 99})
    with pytest.raises(UserError, match=r"training\.workers=4 with threads=99 need 396 CPUs"):
        launch(["mask"], data, str(tmp_path / "run"), many, Console(quiet=True))


def test_the_bundle_gets_an_earlier_checkpoint_as_the_worse_network(data: Path, tmp_path: Path) -> None:
    image = {**TINY["training"]["image"], "checkpoint_every": 1, "keep_history": True, "guide_at": 0.6}
    (tmp_path / "history" / "image" / ".step-0000003.partial").mkdir(parents=True)  # of a killed start
    (tmp_path / "history" / "image" / ".step-0000003.partial" / "config.json").touch()
    made = launch(["image"], data, str(tmp_path), settings(image=image), Console(quiet=True), inline=True)
    loaded = bundle.load(Path(made))
    assert loaded.image_unet is not None
    assert loaded.image_guide is not None
    kept = ImageUNet.from_pretrained(tmp_path / "history" / "image" / "step-0000002", low_cpu_mem_usage=False)
    guide, last = loaded.image_guide.state_dict(), loaded.image_unet.state_dict()
    assert all(torch.equal(guide[name], tensor) for name, tensor in kept.state_dict().items())
    assert not all(torch.equal(guide[name], tensor) for name, tensor in last.items())


def test_what_does_not_fit_is_said_before_any_work(data: Path, tmp_path: Path, labels: Labels) -> None:
    console = Console(quiet=True)
    with pytest.raises(UserError, match="holds no prepared data"):
        launch(["image"], tmp_path / "absent", str(tmp_path / "run"), settings(), console)
    wide = config.validate(config.merge(TINY, {"image_model": {"patch": 64, "attention": [32]}}))
    with pytest.raises(UserError, match=r"patches of 64 pixels.*needs 256"):
        launch(["image"], data, str(tmp_path / "wide"), wide, console)
    for change, named in (
        ({"mask_model": {"pixel_um": 4.0}}, "mask_model.pixel_um 8.0, training asks for 4.0"),
        ({"prepare": {"mpp": 1.0}}, "prepare.mpp 0.5, training asks for 1.0"),
    ):
        with pytest.raises(UserError, match=named):
            launch(
                ["mask"], data, str(tmp_path / "run"), config.validate(config.merge(TINY, change)), console
            )
    ddim = config.validate(config.merge(TINY, {"sampling": {"solver": "ddim", "steps": 30}}))
    with pytest.raises(UserError, match="30 steps do not divide"):
        launch(["mask"], data, str(tmp_path / "run"), ddim, console)
    assert not (tmp_path / "run" / "run.yaml").exists(), "a start that failed claims nothing"
    empty = prepared.make(tmp_path / "empty", settings(), labels, images=0, unlabelled=0)
    with pytest.raises(UserError, match="no image patches"):
        launch(["image"], empty, str(tmp_path / "run2"), settings(), console)
