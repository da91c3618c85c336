"""Training, encoding and preparing in one process, on a machine that has no Ray; and what a run is then."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from diffgen import config
from diffgen.errors import UserError
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.storage import Folder
from diffgen.training import checkpoints
from diffgen.training.driver import launch
from diffgen.training.driver_base import RUN
from diffgen.training.driver_fit import Stopped
from diffgen.training.loop import StopRequest
from diffgen.training.train_state import AVERAGED, STATE
from diffgen.training.worker_link import InlineLink
from tests.conftest import TINY
from tests.data import prepared
from tests.data.pictures import save_slide, tissue


def settings(keep: int = 2, **mask: Any) -> config.Settings:
    return config.validate(config.merge(TINY, {"training": {"mask": mask, "keep_checkpoints": keep}}))


@pytest.fixture(scope="module")
def data(tiny: config.Settings, labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared.make(tmp_path_factory.mktemp("data"), tiny, labels)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    made = bundle.load(folder).mask_unet
    assert made is not None
    return made.state_dict()


def trained(data: Path, run: Path, here: bool = True, **mask: Any) -> tuple[dict[str, torch.Tensor], str]:
    """The weights of the mask model after a start, and what it said."""
    screen = Console(file=io.StringIO(), record=True, width=200)
    made = launch(["mask"], data, str(run), settings(**mask), screen, inline=here)
    return weights(Path(made)), screen.export_text()


WITHOUT = """
import sys
for name in {absent!r}:
    sys.modules[name] = None
for line in {lines!r}:
    sys.argv = ["diffgen", *line.split()]
    from diffgen.cli import app
    app(standalone_mode=False)
"""


def commands(folder: Path, lines: list[str], absent: tuple[str, ...] = ("ray",)) -> str:
    """What these commands say where some packages cannot be imported."""
    code = WITHOUT.format(absent=absent, lines=lines)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_all_three_commands_work_without_ray(tmp_path: Path) -> None:
    """And without TensorBoard, which one line says."""
    save_slide(tmp_path / "slide.tiff", tissue(384, 384), mpp=0.5)
    changes = {"autoencoder": {"latents": "stored", "dihedral": 1}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config.merge(TINY, changes)))
    lines = ["prepare slide.tiff --labels stain -c tiny.yaml --inline", "encode --inline", "train --inline"]
    said = commands(tmp_path, lines, ("ray", "tensorboard"))
    assert said.count("TensorBoard is not installed") == 2, "once a model"
    assert "latents: " in said
    assert "(made before)" in said, "train takes what encode has made"
    run = tmp_path / "runs" / "default"
    made = bundle.load(run / "bundle")
    assert made.image_unet is not None
    assert made.mask_unet is not None
    assert (run / "samples" / "mask-0000004.png").exists()
    assert not (run / "tensorboard").exists()


def test_a_run_keeps_what_ray_train_keeps(data: Path, tmp_path: Path) -> None:
    _, said = trained(data, tmp_path, steps=5, checkpoint_every=1, keep_history=True)
    assert "new, 5 steps, 1 worker(s) on cpu" in said
    kept = tmp_path / "train" / "mask"
    assert {path.name for path in kept.iterdir()} == {
        "step-0000004", "step-0000005", checkpoints.SNAPSHOT
    }  # fmt: skip
    assert (kept / "step-0000005" / STATE).exists()
    assert len(list((tmp_path / "best" / "mask").glob(f"step-*/{AVERAGED}"))) == 1
    assert len(list((tmp_path / "history" / "mask").iterdir())) == 5
    assert list((tmp_path / "tensorboard" / "mask").iterdir())
    of_before = yaml.safe_load((tmp_path / RUN).read_text())
    of_before["training"]["mask"]["betas"] = [0.9, 0.99]  # was a setting
    (tmp_path / RUN).write_text(yaml.safe_dump(of_before))
    _, said = trained(data, tmp_path, steps=5, checkpoint_every=1, keep_history=True)
    assert "was trained already, 5 steps" in said


def stopped_after(steps: int) -> Any:
    """A poll of the link that gets a SIGTERM once so many steps are taken."""
    asked = iter(range(9))

    def poll(link: InlineLink) -> Any:
        if next(asked) == steps - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return StopRequest(stop=link.stopping)

    return poll


def test_a_signal_saves_and_the_same_command_ends_as_if_undisturbed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, _ = trained(data, tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        patch.setattr(InlineLink, "poll", stopped_after(3))
        with pytest.raises(Stopped) as stopped:
            trained(data, tmp_path / "run")
    assert stopped.value.signal == signal.SIGTERM
    assert checkpoints.last(Folder(str(tmp_path / "run")), "mask") == "train/mask/step-0000003"
    resumed, said = trained(data, tmp_path / "run")
    assert "resumed at step 3 of 4" in said
    for name, tensor in undisturbed.items():
        assert torch.equal(resumed[name], tensor), name


def test_discriminative_fine_tuning_needs_a_bundle_and_resumes_against_the_same_reference(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = trained(data, tmp_path / "first")
    tuned = settings(steps=3, discriminative=100.0)
    screen = Console(file=io.StringIO(), width=200)

    def tune(run: Path, start: str | None) -> dict[str, torch.Tensor]:
        return weights(Path(launch(["mask"], data, str(run), tuned, screen, start, inline=True)))

    with pytest.raises(UserError, match=r"training\.mask\.discriminative .* --init-from BUNDLE"):
        tune(tmp_path / "none", None)
    bundle_of_first = str(tmp_path / "first" / "bundle")
    undisturbed = tune(tmp_path / "undisturbed", bundle_of_first)
    assert not all(torch.equal(first[name], tensor) for name, tensor in undisturbed.items())
    with monkeypatch.context() as patch:
        patch.setattr(InlineLink, "poll", stopped_after(2))
        with pytest.raises(Stopped):
            tune(tmp_path / "run", bundle_of_first)
    for name, tensor in tune(tmp_path / "run", bundle_of_first).items():
        assert torch.equal(undisturbed[name], tensor), name


def test_a_training_that_is_out_of_time_ends_with_a_bundle(data: Path, tmp_path: Path) -> None:
    tree = config.merge(TINY, {"training": {"max_seconds": 1e-3, "mask": {"steps": 1000}}})
    screen = Console(file=io.StringIO(), record=True, width=200)
    made = launch(["mask"], data, str(tmp_path), config.validate(tree), screen, inline=True)
    assert bundle.load(Path(made)).mask_unet is not None
    assert "training.max_seconds 0.001 are over, stopped at step 1 of 1000" in screen.export_text(clear=False)
    launch(["mask"], data, str(tmp_path), config.validate(tree), screen, inline=True)
    assert "was trained already, 1 steps" in screen.export_text()


@pytest.mark.parametrize("latents", ["live", "stored"])
@pytest.mark.parametrize(("images", "partial"), [(6, ["test"]), (6, ["train", "test"]), (1, ["test"])])
def test_parts_between_one_patch_and_two_are_left_out_of_wide_training(
    labels: Labels, tmp_path: Path, images: int, partial: list[str], latents: str
) -> None:
    """One of them refuses no data set and stops no checkpoint; held-out data of nothing else is none."""
    tree = {
        "image_model": {"context": "wide", "wide_below": 9.0},
        "autoencoder": {"latents": latents, "dihedral": 1},
        "training": {"image": {"steps": 2, "checkpoint_every": 1}},
    }
    wide = config.validate(config.merge(TINY, tree))
    data = prepared.make(tmp_path / "data", wide, labels, images, min(2, images - 1), partial=partial)
    screen = Console(file=io.StringIO(), record=True, width=200)
    made = launch(["image"], data, str(tmp_path / "run"), wide, screen, inline=True)
    assert bundle.load(Path(made)).image_unet is not None
    said = screen.export_text()
    for split in ("train", "test"):
        assert (f"1 of {images} {split} patches are not used: smaller than 64 pixels" in said) == (
            split in partial
        )
    assert checkpoints.last(Folder(str(tmp_path / "run")), "image") == "train/image/step-0000002"


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_inline_and_ray_take_the_same_steps_and_each_goes_on_with_the_others_run(
    data: Path, tmp_path: Path
) -> None:
    """Three of four steps on Ray, and the last again in one process. From the first step: tests/faults."""
    every: dict[str, Any] = {"keep": 4, "checkpoint_every": 1}
    undisturbed, _ = trained(data, tmp_path / "1", **every)
    for first, second, step in (("1", "2", 1), ("2", "3", 3)):
        subprocess.run(["cp", "-r", tmp_path / first, tmp_path / second], check=True)
        forget(tmp_path / second, step)
        resumed, said = trained(data, tmp_path / second, here=second == "3", **every)
        assert f"resumed at step {step} of 4" in said
        for name, tensor in undisturbed.items():
            assert torch.equal(resumed[name], tensor), name


def forget(run: Path, step: int) -> None:
    """Leaves a run as a start does that was stopped at a step: its later checkpoints are forgotten."""
    snapshot = run / "train" / "mask" / checkpoints.SNAPSHOT
    state = json.loads(snapshot.read_text())
    early = [r for r in state["checkpoint_results"] if r["checkpoint_dir_name"] == f"step-{step:07d}"]
    state |= {"checkpoint_results": early, "checkpoint_report_indices": [0]}
    state |= {"latest_checkpoint_result": early[0], "current_report_index": 1}
    snapshot.write_text(json.dumps(state))
