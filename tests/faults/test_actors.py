"""Actors that die, hang, or say things twice, on a real pool: shards are those of an undisturbed run."""

import json
import shutil
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffgen.errors import IncompleteError, UserError
from diffgen.synthesis import pool
from diffgen.synthesis.coordinator import FIRST
from tests.faults.helpers import Strike, needs_proc
from tests.synthesis.helpers import run, shard_hashes

pytestmark = pytest.mark.usefixtures("ray_cluster")
N = 5
FAULTS = pytest.mark.faults  # its like is in every day's tests


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool looks at its actors a hundred times a second: a victim is hit when it is wanted."""
    monkeypatch.setattr(pool, "POLL_S", 0.01)


@pytest.fixture(scope="module")
def undisturbed(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("inline")
    run(tiny_bundle, out, n=N)
    return shard_hashes(out)


@pytest.mark.parametrize(
    ("samplers", "lease"), [pytest.param(*case, marks=FAULTS) for case in ((1, 50), (2, 1), (4, 3))]
)
def test_the_pool_writes_what_one_process_does(
    tiny_bundle: Path, undisturbed: dict[str, str], tmp_path: Path, samplers: int, lease: int
) -> None:
    """Promise 2: any number of samplers, any lease size, with Ray or without.

    Every day: `test_several_coordinators_share_the_images`.
    """
    run(tiny_bundle, tmp_path, inline=False, n=N, samplers=samplers, lease=lease)
    assert shard_hashes(tmp_path) == undisturbed


@needs_proc
@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(
    "victim", ["Coordinator", "PooledSampler", pytest.param("ShardWriter", marks=FAULTS)]
)
def test_a_killed_actor_changes_nothing(
    tiny_bundle: Path,
    undisturbed: dict[str, str],
    tmp_path: Path,
    victim: str,
) -> None:
    """Promise 6."""
    strike = Strike(victim, after=[3])
    run(tiny_bundle, tmp_path, inline=False, watch=strike, n=N, samplers=1, lease=1)
    assert strike.killed
    assert shard_hashes(tmp_path) == undisturbed


@needs_proc
@pytest.mark.usefixtures("often")
@pytest.mark.slow
@pytest.mark.faults
def test_samplers_killed_again_and_again(
    tiny_bundle: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """At moments drawn at random, more often than losses in a row are put up with."""
    moments = sorted(torch.randint(1, 150, (pool.MAX_LOSSES + 2,)).tolist())
    strike = Strike("PooledSampler", moments)
    run(tiny_bundle, tmp_path, inline=False, watch=strike, n=N, samplers=2, lease=2)
    assert len(strike.killed) > 2, moments
    assert shard_hashes(tmp_path) == undisturbed, moments


@needs_proc
@pytest.mark.usefixtures("often")
@pytest.mark.faults
def test_all_samplers_of_a_node_lost_at_once_are_one_loss(
    tiny_bundle: Path,
    undisturbed: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More of them than losses in a row are put up with."""
    monkeypatch.setattr(pool, "MAX_LOSSES", 1)
    strike = Strike("PooledSampler", after=[3], at_once=2)
    run(tiny_bundle, tmp_path, inline=False, watch=strike, n=N, samplers=2, lease=1)
    assert len(strike.killed) == 2
    assert shard_hashes(tmp_path) == undisturbed


def other_sampler(monkeypatch: pytest.MonkeyPatch, behave: Any) -> None:
    """A pool whose samplers are told to misbehave; local, so that it travels to the workers by value."""

    class PooledSampler(pool.PooledSampler):
        def pull(self, name: str, coordinators: list[Any], budget: int) -> None:
            super().pull(name, behave(self, coordinators), budget)

    monkeypatch.setattr(pool, "PooledSampler", PooledSampler)
    monkeypatch.setattr(pool, "LOOK_S", 0.2)


@pytest.mark.parametrize("after", [pytest.param(0, marks=FAULTS), 4])
def test_a_hanging_sampler_is_replaced_even_the_only_one(
    tiny_bundle: Path,
    undisturbed: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    """Its first lease has longer, as a network may be compiled in it."""
    mark = tmp_path / "hung"

    def hang(self: Any, coordinators: list[Any]) -> list[Any]:
        calls, work = 0, self.sampler.compute

        def hanging(lease: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > after and not mark.exists():
                mark.write_text(str(time.time()))
                time.sleep(600)
            return work(lease)

        self.sampler.compute = hanging
        return coordinators

    other_sampler(monkeypatch, hang)
    run(tiny_bundle, tmp_path / "out", inline=False, n=N, samplers=1, lease=2, lease_timeout_s=1.0)
    waited = time.time() - float(mark.read_text())
    assert shard_hashes(tmp_path / "out") == undisturbed
    assert after or waited > FIRST * 1.0, "the first lease has longer"


@pytest.mark.faults
def test_answers_that_come_twice_count_once(
    tiny_bundle: Path, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(_self: Any, coordinators: list[Any]) -> list[Any]:
        class Commit:
            def __init__(self, real) -> None:  # type: ignore[no-untyped-def]
                self.real = real

            def remote(self, *answer) -> object:  # type: ignore[no-untyped-def]
                self.real.remote(*answer)
                return self.real.remote(*answer)

        class Doubled:
            def __init__(self, real) -> None:  # type: ignore[no-untyped-def]
                self.lease, self.commit = real.lease, Commit(real.commit)

        return [Doubled(coordinator) for coordinator in coordinators]

    other_sampler(monkeypatch, twice)
    run(tiny_bundle, tmp_path, inline=False, n=N, samplers=2, lease=3)
    assert shard_hashes(tmp_path) == undisturbed


def test_a_model_that_gives_nan_is_named(tiny_bundle: Path, tmp_path: Path) -> None:
    """Promise 10, with weights that are really broken; nothing of it reaches a shard.

    Here in one process; what one image is on Ray that is not finite: tests/synthesis/test_pool.py.
    """
    broken = tmp_path / "broken"
    shutil.copytree(tiny_bundle, broken)
    (path,) = (broken / "image_unet").glob("*.safetensors")
    weights = load_file(path)
    first = sorted(weights)[0]
    save_file(weights | {first: torch.full_like(weights[first], torch.nan)}, path)
    assert json.loads((broken / "model_index.json").read_text())
    with pytest.raises(IncompleteError, match=r"5 of 5 samples.*: image \d, image model, step 1 of 3, patch"):
        run(broken, tmp_path / "out", n=N)
    for path in (tmp_path / "out").glob("shard-*"):
        with tarfile.open(path) as tar:
            assert not tar.getnames()


def test_a_sampler_that_cannot_start_says_why(tiny_bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_bundle, broken)
    (path,) = (broken / "image_unet").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"a sampler cannot start: .*(image_unet|header|safetensors)"):
        run(broken, tmp_path / "out", inline=False, n=N, samplers=1)
