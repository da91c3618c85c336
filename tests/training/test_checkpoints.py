"""Checkpoints kept without Ray are those that Ray Train resumes from, and the other way round."""

from pathlib import Path

import pyarrow.fs
import pytest

from diffgen.storage import Folder
from diffgen.training import checkpoints


@pytest.fixture
def run(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "run"))


def register(run: Folder, step: int, tmp_path: Path, keep: int = 2) -> None:
    made = tmp_path / "made"
    made.mkdir(exist_ok=True)
    (made / "weights").write_text(str(step))
    checkpoints.register(run, "mask", made, {"step": step, "held_out_loss": 1.0 / step}, keep)


def rays(run: Folder, keep: int = 2):  # type: ignore[no-untyped-def]  # of Ray's insides
    """What Ray Train makes of the run's checkpoints when it starts."""
    from ray.train import CheckpointConfig
    from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import CheckpointManager
    from ray.train.v2._internal.execution.storage import StorageContext

    assert run.local is not None
    storage = StorageContext(f"{run.local}/train", "mask", pyarrow.fs.LocalFileSystem())
    return CheckpointManager(CheckpointConfig(num_to_keep=keep), storage)


def test_the_last_ones_are_kept(run: Folder, tmp_path: Path) -> None:
    assert checkpoints.last(run, "mask") is None
    for step in (1, 2, 3, 3):  # the last step again, as after a signal
        register(run, step, tmp_path)
    assert checkpoints.last(run, "mask") == "train/mask/step-0000003"
    assert run.local is not None
    folders = {path.name for path in (run.local / "train" / "mask").iterdir() if path.is_dir()}
    assert folders == {"step-0000002", "step-0000003"}


def test_ray_train_goes_on_from_them_and_gives_them_back(run: Folder, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        register(run, step, tmp_path)
    manager = rays(run)
    assert manager._latest_checkpoint_result.metrics == {"step": 3, "held_out_loss": 1 / 3}
    with manager._latest_checkpoint_result.checkpoint.as_directory() as folder:
        assert (Path(folder) / "weights").read_text() == "3"
    manager._write_state_to_storage()
    assert checkpoints.last(run, "mask") == "train/mask/step-0000003"
    register(run, 4, tmp_path)
    assert [result.metrics["step"] for result in rays(run)._checkpoint_results] == [3, 4]
