"""`jobs/slurm.sh` with stand-ins for Slurm's commands; tests/faults/test_slurm.py has the real ones."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.jobs import checks

SCRIPT = Path(__file__).resolve().parent.parent.parent / "jobs" / "slurm.sh"
TEXT = SCRIPT.read_text(encoding="utf-8")
HEAD = TEXT.split("set -eu")[0]
JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "3", "SLURMD_NODENAME": "n1", "SLURM_CPUS_ON_NODE": "2"}
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")


@pytest.fixture
def field(tmp_path: Path) -> dict[str, str]:
    """An environment in which `srun`, `scontrol` and others write down what they are asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    said = {"python": "[ $# -gt 1 ] && echo 127.0.0.1", "srun": "", "scontrol": "", "timeout": ""}
    said["sleep"] = '[ "$1" = 600 ] || exec /bin/sleep "$1"'  # which Slurm would end
    for name, does in said.items():
        (folder / name).write_text(f'#!/bin/bash\necho "{name} $*" >> {tmp_path}/calls\n{does}\nexit 0\n')
        (folder / name).chmod(0o755)
    return os.environ | JOB | {"PATH": f"{folder}:{os.environ['PATH']}"}


def start(field: dict[str, str], folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", str(SCRIPT), *words],
        env=field,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Of tests in the background SIGINT is ignored, and a shell cannot trap what it began with ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def listening(port: int) -> subprocess.Popen[bytes]:
    """What answers at the head's port."""
    code = f"import socket; s = socket.create_server(('127.0.0.1', {port})); [s.accept() for _ in range(9)]"
    return subprocess.Popen([sys.executable, "-c", code])


def test_its_example_is_a_valid_command_on_shared_storage() -> None:
    lines = re.sub(r"\\\n#\s*", "", HEAD)
    (example,) = re.findall(r"^#     sbatch .* jobs/slurm\.sh\s+(diffgen .*)$", lines, re.MULTILINE)
    checks.check_command(example.split(), {"/shared"})


def test_slurm_may_requeue_it_and_tells_it_before_the_time_limit() -> None:
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", HEAD, re.MULTILINE))
    assert {"requeue", "signal", "open-mode", "nodes", "time"} <= set(options)
    assert re.fullmatch(r"B:USR1@\d+", options["signal"])
    assert options["open-mode"] == "append"


def test_without_a_command_it_says_how(tmp_path: Path, field: dict[str, str]) -> None:
    process = start(field, tmp_path)
    assert "say the command" in process.communicate()[1]
    assert process.returncode == 2


@pytest.mark.parametrize("status", [0, 3])
def test_the_status_is_that_of_the_command(tmp_path: Path, field: dict[str, str], status: int) -> None:
    server = listening(20007)
    try:
        process = start(field, tmp_path, "bash", "-c", f"echo $RAY_ADDRESS > address; exit {status}")
        process.communicate(timeout=60)
    finally:
        server.kill()
    workers = r"srun .*--nodes=2 .*--exclude=n1 ray start .*--address=127.0.0.1:20007"
    until = time.monotonic() + 60
    while not re.search(workers, calls := (tmp_path / "calls").read_text()):  # started beside the command
        assert time.monotonic() < until, calls
        time.sleep(0.05)
    assert process.returncode == status
    assert "scontrol" not in calls
    assert (tmp_path / "address").read_text() == "127.0.0.1:20007\n"
    assert re.search(r"srun .*--nodes=1 .*--nodelist=n1 ray start .*--head .*--port=20007", calls)
    assert ("rm -rf /tmp/ray-7" in calls) is (status == 0), "of a failed job Ray's logs stay"


def test_told_to_stop_it_interrupts_the_command_and_goes_back_into_the_queue(
    tmp_path: Path, field: dict[str, str]
) -> None:
    command = "trap 'echo saved > saved; exit 130' INT; touch begun; for k in {1..1200}; do sleep 0.1; done"
    server = listening(20007)
    try:
        process = start(field, tmp_path, "bash", "-c", command)
        until = time.monotonic() + 60
        while not (tmp_path / "begun").exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGUSR1)
        said = process.communicate(timeout=60)[0]
    finally:
        server.kill()
    assert (tmp_path / "saved").exists()
    assert "back into the queue" in said
    assert "scontrol requeue 7" in (tmp_path / "calls").read_text()


def test_told_to_stop_before_the_command_began_it_goes_back_into_the_queue_too(
    tmp_path: Path, field: dict[str, str]
) -> None:
    (tmp_path / "bin" / "timeout").write_text(
        f"#!/bin/bash\ntouch {tmp_path}/waiting\n/bin/sleep 2\nexit 0\n"
    )
    server = listening(20007)
    try:
        process = start(field, tmp_path, "touch", "begun")
        until = time.monotonic() + 60
        while not (tmp_path / "waiting").exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGUSR1)
        process.communicate(timeout=60)
    finally:
        server.kill()
    assert not (tmp_path / "begun").exists()
    assert "scontrol requeue 7" in (tmp_path / "calls").read_text()
