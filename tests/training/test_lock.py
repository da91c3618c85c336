"""A run is one command's at a time, and free again however that ends."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from diffgen.errors import UserError
from diffgen.training.folder import RunFolder
from diffgen.training.lock import held

OTHER = """
import sys, time
from rich.console import Console
from diffgen.training.folder import RunFolder
from diffgen.training.lock import held

with held(RunFolder(sys.argv[1]), Console(quiet=True)):
    print("has it", flush=True)
    time.sleep(600)
"""


def test_two_commands_do_not_share_a_run_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    run, console = RunFolder(str(tmp_path / "run")), Console(record=True, width=300)
    line = [sys.executable, "-c", OTHER, str(tmp_path / "run")]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "has it\n"
        with (
            pytest.raises(UserError, match=rf"another command is at work on run {run}; choose another --run"),
            held(run, console, patience_s=0.1),
        ):
            pytest.fail("held by two")
        assert console.export_text().count("waiting for another command") == 1, "told once"
        other.send_signal(signal.SIGKILL)
        with held(run, console, patience_s=60):
            pass


def test_it_is_free_after_an_error_and_another_run_is_no_matter(tmp_path: Path) -> None:
    run, console = RunFolder(str(tmp_path / "run")), Console(quiet=True)
    with pytest.raises(UserError, match="a fault"), held(run, console):
        raise UserError("a fault")
    with held(run, console, 0.1), held(RunFolder(str(tmp_path / "other")), console, 0.1):
        pass


def test_a_store_behind_a_url_holds_nothing() -> None:
    run, console = RunFolder("memory://runs/locked"), Console(quiet=True)
    with held(run, console, 0.1), held(run, console, 0.1):
        assert not run.exists(".lock")
