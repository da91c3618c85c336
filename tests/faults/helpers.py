"""Processes of a run: found by their titles, killed, and started again."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diffgen.synthesis.leases import Status
from tests.synthesis.helpers import settings

ROOT = Path(__file__).resolve().parent.parent.parent
needs_proc = pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds its victims in /proc")


def processes(actor: str) -> list[int]:
    """Pids of the actors of one class, by the titles that Ray gives its workers."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it may be gone by now
            if path.read_bytes().startswith(f"ray::{actor}".encode()):
                found.append(int(path.parent.name))
    return found


class Strike:
    """SIGKILLs so many actors of one kind each time that many patches are done: what watches a run."""

    def __init__(self, victim: str, after: list[int], at_once: int = 1) -> None:
        self.victim, self.moments, self.at_once = victim, list(after), at_once
        self.killed: list[int] = []

    def __call__(self, status: Status) -> None:
        alive = [pid for pid in processes(self.victim) if pid not in self.killed]
        if self.moments and status.patches >= self.moments[0] and len(alive) >= self.at_once:
            self.moments.pop(0)
            for pid in alive[: self.at_once]:
                self.killed.append(pid)
                os.kill(pid, signal.SIGKILL)


def write_settings(path: Path, **synthesis: Any) -> Path:
    """The tests' settings as a file for `--config`."""
    path.write_text(settings(**synthesis).dump(), encoding="utf-8")
    return path


def command(bundle: Path, out: Path, given: Path, *more: str) -> list[str]:
    """The command line of a run."""
    diffgen = [str(Path(sys.executable).with_name("diffgen")), "synthesize"]
    return [*diffgen, "--bundle", str(bundle), "--out", str(out), "--config", str(given), *more]


def call(line: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        line, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
