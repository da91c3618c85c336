"""The real pool on Ray. Any number of samplers, and actors that are killed, are in tests/faults."""

from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayActorError

from diffgen.errors import IncompleteError
from diffgen.synthesis import pool
from diffgen.synthesis.backlog import Backlog, Report
from diffgen.synthesis.driver import run_inline
from diffgen.synthesis.leases import Status
from tests.faults.helpers import needs_proc, processes
from tests.synthesis.helpers import run, run_in_turns, shard_hashes
from tests.synthesis.test_driver import maps_of, poisoned

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def undisturbed(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("inline")
    run(tiny_bundle, out, n=5)
    return shard_hashes(out)


@needs_proc
def test_several_coordinators_share_the_images(
    tiny_bundle: Path, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a range of images, and a shard may hold images of two; each sampler serves them all.

    Promise 2 as well: two samplers and leases of a patch write what one process does. The writer is given
    one shard at a time, so that rendering waits for it.
    """
    monkeypatch.setattr(pool, "CPUS_FED", 1)
    monkeypatch.setattr(pool, "WRITTEN_AT_ONCE", 1)
    coordinators = set[int]()
    run(
        tiny_bundle, tmp_path, inline=False, n=5, samplers=2, lease=1,
        watch=lambda _: coordinators.update(processes("Coordinator")),
    )  # fmt: skip
    assert len(coordinators) >= 2, "another cluster of this machine may have some too"
    assert shard_hashes(tmp_path) == undisturbed


OUTPAINTED = {"n": 2, "size": "48", "sampling": {"cover": "outpaint"}}
REGION = {"n": 1, "size": "160", "region": "64,64,32,32", "sampling": {"steps": 2, "mask_steps": 2}}


@pytest.mark.parametrize("asked", [OUTPAINTED, REGION], ids=["outpainted", "region"])
def test_whoever_works_on_it_makes_the_same_images(
    tiny_bundle: Path, tmp_path: Path, asked: dict[str, Any]
) -> None:
    """As on Ray, by what travels between processes; on Ray itself with the faults."""
    run(tiny_bundle, tmp_path / "inline", **asked)
    run_in_turns(tiny_bundle, tmp_path / "turns", **asked)
    assert shard_hashes(tmp_path / "turns") == shard_hashes(tmp_path / "inline")


@pytest.mark.faults
@pytest.mark.parametrize("asked", [OUTPAINTED, REGION], ids=["outpainted", "region"])
def test_the_pool_makes_the_same_images(tiny_bundle: Path, tmp_path: Path, asked: dict[str, Any]) -> None:
    run(tiny_bundle, tmp_path / "inline", **asked)
    run(tiny_bundle, tmp_path / "ray", inline=False, samplers=1, **asked)
    assert shard_hashes(tmp_path / "ray") == shard_hashes(tmp_path / "inline")


def test_an_image_that_is_not_finite_leaves_its_shard_to_the_others(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    generator, masks = poisoned(tiny_bundle, tmp_path), maps_of(tmp_path / "masks", 1, 4, 2)
    for inline in (False, True):
        out = tmp_path / f"inline={inline}"
        with pytest.raises(IncompleteError, match=r"1 of 3 samples.*: image 1, image model, step 1 of 3"):
            run(generator, out, masks, inline, n=3, samplers=1)
    assert len(shard_hashes(out)) == 2
    assert shard_hashes(tmp_path / "inline=False") == shard_hashes(out)


class Alone:
    """A pool of this process, without actors."""

    def __init__(self, backlog: Backlog) -> None:
        self.backlog, self.status = backlog, Status()

    def run(self, report: Report) -> Status:
        def keep(status: Status) -> None:
            self.status = status
            report(status)

        return run_inline(self.backlog, keep)

    def close(self) -> None: ...


def test_a_run_that_is_lost_at_its_very_end_has_ended(
    tiny_bundle: Path, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All shards are written and a coordinator dies: nothing is missing, the figures are those of the run."""

    def dying(_: Status) -> None:
        if len(list(tmp_path.glob("manifest/*.parquet"))) == 3:
            raise RayActorError

    monkeypatch.setattr(pool, "Pool", Alone)
    status = run(tiny_bundle, tmp_path, inline=False, watch=dying, n=5, samplers=1).status
    assert shard_hashes(tmp_path) == undisturbed
    assert status.images == 5
    assert status.forwards == status.rows > 0


def test_pauses_grow_to_a_limit() -> None:
    pauses = [pool.pause(idle) for idle in (0, 1, 2, 5, 100, 10**6)]
    assert pauses[0] == 0
    assert pauses == sorted(pauses)
    assert pauses[-1] == pool.WAIT_S[1]
