"""`jobs/slurm.sh` on a real Slurm: stopped before its time limit, queued again, equal bytes."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.helpers import ROOT, command, write_settings
from tests.faults.slurm_here import missing, started, until
from tests.synthesis.helpers import run, shard_hashes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.faults,
    pytest.mark.skipif(bool(missing()), reason=missing() or "Slurm is here"),
]
MANY = {"n": 96, "images_per_shard": 4, "samplers": "auto"}
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
Call = Callable[..., str]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Call]:
    with started(tmp_path_factory.mktemp("slurm") / "slurm") as call:
        yield call


def submit(slurm: Call, log: Path, *words: str) -> str:
    """The number of a job of two nodes with a CPU each."""
    options = ["--parsable", "--cpus-per-task=1", "--time=30", f"--chdir={log.parent}", f"--output={log}"]
    return slurm(
        "sbatch", *options, str(ROOT / "jobs" / "slurm.sh"), *words, PATH=PATH, PYTHONPATH=str(ROOT)
    ).strip()


def state(slurm: Call, job: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S+)", slurm("scontrol", "show", "job", job)))


def test_a_job_that_is_stopped_and_requeued_writes_what_one_process_does(
    slurm: Call, tiny_bundle: Path, tmp_path: Path
) -> None:
    run(tiny_bundle, tmp_path / "whole", **MANY)
    out, log = tmp_path / "out", tmp_path / "log"
    job = submit(slurm, log, *command(tiny_bundle, out, write_settings(tmp_path / "settings.yaml", **MANY)))
    until(lambda: len(list(out.glob("manifest/*.parquet"))) >= 3, 300)
    slurm("scancel", "--batch", "--signal=USR1", job)  # what --signal sends before the time limit
    until(lambda: state(slurm, job)["Restarts"] == "1", 60)
    done = len(list(out.glob("manifest/*.parquet")))
    assert 3 <= done < 24, "stopped in the middle"
    until(lambda: state(slurm, job)["JobState"] == "COMPLETED", 600)
    said = log.read_text()
    assert "start 1, 2 nodes" in said
    assert "whole shards are in" in said
    assert "start 2, 2 nodes" in said
    assert re.search(r"resuming: \d+ of 96 images are already there", said)
    assert shard_hashes(out) == shard_hashes(tmp_path / "whole")
    assert not Path(f"/tmp/ray-{job}").exists()


def test_a_command_that_fails_by_itself_is_not_tried_again(
    slurm: Call, tiny_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = command(tiny_bundle, out, write_settings(tmp_path / "settings.yaml"), "--set", "synthesis.m=3")
    job = submit(slurm, tmp_path / "log", *words)
    until(lambda: state(slurm, job)["JobState"] == "FAILED", 300)
    found = state(slurm, job)
    assert (found["Restarts"], found["ExitCode"]) == ("0", "2:0")
    assert "synthesis.m" in (tmp_path / "log").read_text()
    shutil.rmtree(f"/tmp/ray-{job}", ignore_errors=True)  # which stays of a failed job
