"""Slurm on this machine: a controller and two nodes of its own name, by Debian's packages, without munge."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CONF = """\
ClusterName=tests
SlurmctldHost={host}({address})
SlurmctldPort={controller}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
KillWait=5
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr={address} Port={first} CPUs=2 RealMemory=2000
NodeName=n2 NodeHostname={host} NodeAddr={address} Port={second} CPUs=2 RealMemory=2000
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""
NEEDED = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")


def missing() -> str:
    """Why Slurm cannot be started here; empty if it can."""
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if absent:
        return f"no {', '.join(absent)}: apt-get install slurm-wlm"
    return "" if os.geteuid() == 0 else "slurmd wants root"


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@contextmanager
def started(folder: Path) -> Iterator[Callable[..., str]]:
    """While it is entered, Slurm runs; what is given runs one of its commands and returns its output."""
    (folder / "state").mkdir(parents=True)
    ports = {name: free_port() for name in ("controller", "first", "second")}
    text = CONF.format(host=socket.gethostname(), address="127.0.0.1", folder=folder, **ports)
    (folder / "slurm.conf").write_text(text, encoding="utf-8")
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}

    def call(*words: str, **more: str) -> str:
        done = subprocess.run(words, env=environment | more, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    daemons = [["slurmctld", "-D", "-c", "-i"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"]]
    quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = [subprocess.Popen(words, **quiet) for words in daemons]  # type: ignore[call-overload]
    try:
        until(lambda: subprocess.run(["sinfo"], **quiet, check=False).returncode == 0, 20)  # type: ignore[call-overload]
        until(lambda: call("sinfo", "-h", "-o", "%T").split() == ["idle"], 30)
        yield call
    finally:
        subprocess.run(["scancel", "--user=root"], **quiet, check=False)  # type: ignore[call-overload]
        with_jobs = time.monotonic() + 20
        while (
            time.monotonic() < with_jobs
            and subprocess.run(
                ["squeue", "-h"], env=environment, capture_output=True, check=False
            ).stdout.strip()
        ):
            time.sleep(0.5)
        for daemon in reversed(running):
            daemon.send_signal(signal.SIGTERM)
        for daemon in running:
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()


def until(is_so: Callable[[], bool], seconds: float) -> None:
    """Wait for something, at most so long."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"not within {seconds:g} s"
        time.sleep(0.2)
