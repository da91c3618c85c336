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


def test_the_rate_is_that_of_wall_times_after_the_start(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        times = [0.0, 50.0, 60.0, 61.0, 62.0, 64.0]  # a slow start, then 40 steps in 4 s
        for k, now in enumerate(times):
            for tag, value in (("loss", 1.0), ("data_wait_share", 0.9 if k < 3 else 0.1 * (k - 2))):
                writer.add_scalar(f"train/{tag}", value, 10 * (k + 1), walltime=now)
    rate, wait = training.steady(tmp_path)
    assert rate == pytest.approx(30 / 4)
    assert wait == pytest.approx(0.2)


def test_a_run_is_held_against_the_loops_around_it() -> None:
    bare = iter([10.0, 20.0, 20.0])
    found = training.by_turns(lambda k: [15.0, 10.0][k], lambda: next(bare), 2)
    assert found["ratios"] == [1.0, 0.5]
    assert found["ratio"] == 0.75


@pytest.fixture
def data(tiny: config.Settings, labels: Labels, tmp_path: Path) -> Path:
    return prepared.make(tmp_path / "data", tiny, labels)


def test_all_patches_are_in_memory_as_the_command_has_them(data: Path, tiny: config.Settings) -> None:
    stock = bare_loop.stored(data, tiny)
    assert stock.latents.shape == (6, 4, 16, 16)
    assert stock.maps.shape == (6, 16, 16)
    assert not stock.maps[-1].any()  # unlabelled
    assert stock.maps[0].any()


def test_the_bare_loop_takes_the_steps_it_is_timed_for(data: Path, tiny: config.Settings) -> None:
    answers = mock.Mock()
    with mock.patch.object(torch.optim.AdamW, "step", autospec=True) as stepped:
        bare_loop.loop(0, tiny, bare_loop.stored(data, tiny), 1, 3, "", answers)
    assert stepped.call_count == 3 + 2
    (seconds,) = answers.put.call_args.args
    assert seconds > 0


@pytest.mark.slow
def test_two_processes_of_the_loop_meet(data: Path, tiny: config.Settings) -> None:
    assert bare_loop.loop_rate(tiny, bare_loop.stored(data, tiny), 2, 3) > 0


def test_settings_give_crops_of_one_size_and_all_cores(data: Path, tmp_path: Path) -> None:
    bench = training.Bench(data, tmp_path)
    for workers in (1, 2):
        settings, told = bench.settings(workers)
        assert settings.training.worker_range == (workers, workers)
        assert settings.training.threads == max(1, training.CORES // workers)
        assert len(settings.image_model.sides) == 1
        assert settings.autoencoder.latents == "stored"
        assert f"places.runs={tmp_path}" in told


def test_a_command_that_fails_says_why(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no\.such"):
        training.Bench(data, tmp_path).command("encode", "x", ["no.such=1"])


def test_the_bare_encoder_counts_images() -> None:
    codec = bare_loop.LatentCodec(training.quarter_of_stable_diffusion())
    assert bare_loop.bare_encoder(codec, torch.zeros(3, 3, 32, 32), 1, 0.2) > 1
