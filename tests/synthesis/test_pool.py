"""The real pool on Ray: equal bytes with any number of samplers, and when actors are killed."""

import contextlib
import os
import signal
from pathlib import Path

import pytest

from diffgen.synthesis import pool
from tests.synthesis.helpers import run, shard_hashes

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def undisturbed(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("inline")
    run(tiny_bundle, out, n=5)
    return shard_hashes(out)


@pytest.mark.parametrize("samplers", [2, 4])
def test_the_pool_writes_what_one_process_does(
    tiny_bundle: Path, undisturbed: dict[str, str], tmp_path: Path, samplers: int
) -> None:
    """Promise 2: any number of samplers, any lease size, with Ray or without."""
    run(tiny_bundle, tmp_path, inline=False, n=5, samplers=samplers, lease=3)
    assert shard_hashes(tmp_path) == undisturbed


def test_several_coordinators_share_the_images(
    tiny_bundle: Path, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a range of images, and a shard may hold images of two; one sampler serves them all."""
    monkeypatch.setattr(pool, "CPUS_FED", 1)
    made: list[int] = []
    begin = pool.Pool.run

    def counted(self: pool.Pool, report) -> object:  # type: ignore[no-untyped-def]
        made.append(len(self.coordinators))
        return begin(self, report)

    monkeypatch.setattr(pool.Pool, "run", counted)
    run(tiny_bundle, tmp_path, inline=False, n=5, samplers=2)
    assert made == [2]
    assert shard_hashes(tmp_path) == undisturbed


def strike(monkeypatch: pytest.MonkeyPatch, victim: str, after: int) -> list[int]:
    """SIGKILL the processes of one kind of actor once so many patches are done; their pids, later."""
    killed: list[int] = []
    start = pool.Pool.run

    def watched(self: pool.Pool, report) -> object:  # type: ignore[no-untyped-def]
        def kill_then_report(status) -> None:  # type: ignore[no-untyped-def]
            if status.patches >= after and not killed:
                killed.extend(processes(victim))
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)
            report(status)

        return start(self, kill_then_report)

    monkeypatch.setattr(pool.Pool, "run", watched)
    monkeypatch.setattr(pool, "POLL_S", 0.01)
    return killed


def processes(actor: str) -> list[int]:
    """Pids of the actors of one class, by the titles that Ray gives its workers."""
    titles = {int(path.parent.name): path for path in Path("/proc").glob("[0-9]*/cmdline")}
    found = []
    for pid, path in titles.items():
        with contextlib.suppress(OSError):  # it may be gone by now
            if path.read_bytes().startswith(f"ray::{actor}".encode()):
                found.append(pid)
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds its victims in /proc")
@pytest.mark.parametrize("victim", ["Coordinator", "PooledSampler", "ShardWriter"])
def test_a_killed_actor_changes_nothing(
    tiny_bundle: Path,
    undisturbed: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    victim: str,
) -> None:
    """Promise 6."""
    killed = strike(monkeypatch, victim, after=3)
    run(tiny_bundle, tmp_path, inline=False, n=5, samplers=1, lease=1)
    assert killed
    assert shard_hashes(tmp_path) == undisturbed
