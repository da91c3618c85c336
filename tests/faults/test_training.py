"""A training that is killed, stopped, moved and resized: it loses what came after its last checkpoint only.

Real processes by the real command line. The losses of all steps, read from TensorBoard's files, are those
of a run that nobody disturbed: same data in the same order, same state.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffgen.labels import Labels
from tests.faults.helpers import needs_proc
from tests.faults.training_helpers import (
    ENVIRONMENT,
    EVERY,
    STEPS,
    Driver,
    Run,
    beginnings,
    data,
    kill,
    same,
    workers,
)

pytestmark = [needs_proc, pytest.mark.slow]
ALL = range(1, STEPS + 1)
TWO = "training.workers=2"


@pytest.fixture(scope="module")
def patches(labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data(tmp_path_factory.mktemp("data"), labels)


@pytest.fixture(scope="module")
def undisturbed(patches: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The curve of two workers that nothing happens to."""
    run = Run(tmp_path_factory.mktemp("whole"), patches)
    with run.start("--set", TWO) as driver:
        driver.ends()
    assert run.starts == 1
    assert run.registered() == STEPS
    return run.curve()


def lost_nothing_registered(driver: Driver, last: int) -> None:
    """The latest beginning is at the last checkpoint there was when the blow fell, or at a later one."""
    begin = driver.begins()[-1]
    assert last <= begin < last + 2 * EVERY, driver.said()


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("max_failures", [3, pytest.param(0, marks=pytest.mark.faults)])
def test_a_killed_worker_is_replaced(patches: Path, tmp_path: Path, max_failures: int) -> None:
    """The one of these that is quick enough for every day: on the tests' cluster, by this process.

    Where Ray Train has no failures left to put up with, a checkpoint made since the last one begins anew.
    Undisturbed is a run in one process: Ray takes the same steps from the first one on.
    """
    whole = Run(tmp_path / "whole", patches)
    run, last = Run(tmp_path / "killed", patches, max_failures=max_failures), list[int]()

    def strike() -> None:
        while run.registered() < 2 * EVERY:
            time.sleep(0.02)
        time.sleep(0.15)
        last.append(run.registered())
        kill(workers(os.getpid()))

    whole.here(inline=True)
    killer = threading.Thread(target=strike, daemon=True)
    killer.start()
    begins = beginnings(run.here())
    killer.join()
    assert len(begins) == 2
    assert last[0] <= begins[1] < last[0] + 2 * EVERY
    same(run.curve(), whole.curve(), ALL)


@pytest.mark.faults
@pytest.mark.usefixtures("ray_cluster")
def test_a_run_that_was_trained_is_left_as_it_is(patches: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, patches, mask={"steps": 2, "batch": 4})
    run.here()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.safetensors")}
    told = run.here()
    assert "mask model: 0.1 M parameters, was trained already, 2 steps, 1 worker(s)" in told
    assert "starting workers" not in told
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.safetensors")}


@pytest.mark.faults
def test_one_of_two_workers_then_the_driver_and_its_cluster(
    patches: Path, undisturbed: dict[int, float], tmp_path: Path
) -> None:
    run = Run(tmp_path, patches)
    with run.start("--set", TWO) as driver:
        last = driver.reach(EVERY)
        victim = workers(driver.process.pid)[1]
        kill([victim])
        driver.until("a second beginning", lambda: len(driver.begins()) == 2)
        lost_nothing_registered(driver, last)
        last = driver.reach(run.registered() + EVERY)
    assert driver.process.returncode == -signal.SIGKILL, "the end of the context kills them all"
    with run.start("--set", TWO) as driver:
        driver.ends()
    lost_nothing_registered(driver, last)
    same(run.curve(), undisturbed, ALL)


@pytest.mark.faults
def test_signals_save_first_and_one_worker_goes_on_for_two(
    patches: Path, undisturbed: dict[int, float], tmp_path: Path
) -> None:
    """Ctrl-C reaches all processes of a terminal, SIGTERM one. One worker takes the global batch of two."""
    run, saved = Run(tmp_path, patches), 0
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with run.start("--set", TWO) as driver:
            last = driver.reach(saved + EVERY)
            if number == signal.SIGINT:
                os.killpg(driver.process.pid, number)
            else:
                driver.process.send_signal(number)
            driver.ends(status)
        assert driver.begins() == [saved], "it has gone on from what the signal saved"
        saved = run.registered()
        assert last < saved < STEPS
        assert set(run.curve()) == set(range(1, saved + 1)), "no step is lost"
    with run.start("--set", "training.workers=1") as driver:
        driver.ends()
    assert driver.begins() == [saved]
    same(run.curve(), undisturbed, ALL)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head for the driver and two nodes with room for one worker each."""
    from ray.cluster_utils import Cluster

    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    made.shutdown()


@pytest.mark.faults
def test_a_node_is_taken_away_with_notice_then_another_without(
    patches: Path, undisturbed: dict[int, float], tmp_path: Path, cluster: Any
) -> None:
    """A notice is answered by a checkpoint at once, so nothing but the steps after it is done again."""
    run, (going, lost) = Run(tmp_path, patches), list(cluster.worker_nodes)
    with run.start("--set", TWO, RAY_ADDRESS=cluster.address) as driver:
        driver.reach(EVERY)
        drain(cluster, going, seconds=60)
        saved = driver.until("save between two checkpoints", lambda: off_beat(run))
        cluster.remove_node(going, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        driver.until("a second beginning", lambda: len(driver.begins()) == 2)
        assert driver.begins()[-1] >= saved
        last = driver.reach(run.registered() + EVERY)
        cluster.remove_node(lost, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        driver.ends()
    assert len(driver.begins()) == 3
    lost_nothing_registered(driver, last)
    same(run.curve(), undisturbed, ALL)


def off_beat(run: Run) -> int:
    last = run.registered()
    return last if last % EVERY else 0


def drain(cluster: Any, node: Any, seconds: float) -> None:
    """What a cloud's notice of preemption comes to: Ray's autoscaler calls this."""
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline_ms = int((time.time() + seconds) * 1000)
    accepted, why = GcsClient(address=cluster.address).drain_node(node.node_id, reason, "a test", deadline_ms)
    assert accepted, why
