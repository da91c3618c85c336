"""The benchmark of training reads the log right, and its bare loop learns as the command does."""

from pathlib import Path
from unittest import mock

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from benchmarks import bare_loop, training
from diffgen import config
from diffgen.labels import Labels
from tests.data import prepared


def test_a_log_is_read_with_its_times(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(3):
            writer.add_scalar("train/loss", 1.0, step, walltime=10.0 * step)
    assert [entry.wall_time for entry in training.log(tmp_path)["train/loss"]] == [0.0, 10.0, 20.0]


@pytest.fixture
def data(tiny: config.Settings, labels: Labels, tmp_path: Path) -> Path:
    return prepared.make(tmp_path / "data", tiny, labels)


def test_all_patches_are_in_memory_as_the_command_has_them(data: Path, tiny: config.Settings) -> None:
    stock = bare_loop.stored(data, tiny)
    assert stock.latents.shape == (6, 4, 16, 16)
    assert stock.maps.shape == (6, 16, 16)
    assert not stock.maps[-1].any()  # unlabelled
    assert stock.maps[0].any()


def test_the_bare_loop_takes_its_steps_and_tells_when_each_ended(
    data: Path, tiny: config.Settings, tmp_path: Path
) -> None:
    times = tmp_path / "times"
    with mock.patch.object(torch.optim.AdamW, "step", autospec=True) as stepped:
        bare_loop.loop(0, tiny, bare_loop.stored(data, tiny), 1, "", times, steps=3)
    assert stepped.call_count == 3
    ends = [float(line) for line in times.read_text().split()]
    assert len(ends) == 3
    assert ends == sorted(ends)


@pytest.mark.slow
def test_two_processes_of_the_loop_meet(data: Path, tiny: config.Settings, tmp_path: Path) -> None:
    with bare_loop.looping(tiny, bare_loop.stored(data, tiny), 2, tmp_path / "times") as pids:
        assert len(set(pids)) == 2


def test_settings_give_crops_of_one_size(data: Path, tmp_path: Path) -> None:
    bench = training.Bench(data, tmp_path)
    for workers, threads in ((1, 2), (2, 1)):
        settings, told = bench.settings(workers, threads)
        assert settings.training.worker_range == (workers, workers)
        assert settings.training.threads == threads
        assert len(settings.image_model.sides) == 1
        assert settings.autoencoder.latents == "stored"
        assert f"places.runs={tmp_path}" in told


def test_a_command_that_fails_says_why(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no\.such"):
        training.Bench(data, tmp_path).command("encode", "x", ["no.such=1"])


def test_the_bare_encoder_counts_images() -> None:
    codec = bare_loop.LatentCodec(training.quarter_of_stable_diffusion())
    answers = mock.Mock()
    bare_loop.encoder(codec, torch.zeros(3, 3, 32, 32), 0.2, mock.Mock(), answers)
    (rate,) = answers.put.call_args.args
    assert rate > 1
