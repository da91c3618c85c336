"""A training run, by its command line or here: started, watched by its files, struck, and its curve read.

Nothing of `diffgen.training` but the launch and the run's folder is called here: what is seen is what a
user would see.
"""

import contextlib
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.turns import descendants
from diffgen import config
from diffgen.labels import Labels
from diffgen.storage import Folder
from diffgen.training.driver import launch
from tests.conftest import TINY
from tests.data import prepared

STEPS, EVERY = 150, 25
"""Steps of a run, and between its checkpoints: a second's work, so that a blow falls between two."""
PATIENCE_S = 600.0
WORKER = "RayTrainWorker"
ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.2",
    "RAY_worker_niceness": "0",  # Ray's 15 starves its workers where the machine has other work
    "OMP_NUM_THREADS": "1",
}
"""A cluster that a test starts itself wants these too: Ray's processes inherit them from it."""


class Run:
    """A run of the tiny mask model: what it is told and says in `folder`, itself there or at a URL."""

    def __init__(self, folder: Path, data: Path, runs: str | None = None, **training: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        mask = {"steps": STEPS, "batch": 4, "checkpoint_every": EVERY, "sample_every": STEPS}
        changes = {
            "places": {"runs": runs or str(folder)},
            "training": {"log_every": 1, "mask": mask, **training},
        }
        self.folder, self.data, self.starts = folder, data, 0
        self.place = Folder(f"{runs or folder}/run")
        self.settings = folder / "settings.yaml"
        self.settings.write_text(config.validate(config.merge(TINY, changes)).dump(), encoding="utf-8")

    def here(self, inline: bool = False) -> str:
        """Trains by this process, on the cluster that it is in or `inline` without; what it said."""
        console = Console(file=io.StringIO(), record=True, width=300)
        settings = config.load(self.settings, [])
        launch(["mask"], self.data, self.place.url, settings, console, inline=inline)
        return console.export_text()

    def start(self, *options: str, **environment: str) -> "Driver":
        """`diffgen train mask`, in a process group of its own as a terminal would do it."""
        diffgen = str(Path(sys.executable).with_name("diffgen"))
        line = [diffgen, "train", "mask", "--data", str(self.data), "--config", str(self.settings)]
        line += ["--run", "run", *options]
        self.starts += 1
        log = self.folder / f"start-{self.starts}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                line,
                cwd=self.folder,
                env=os.environ | ENVIRONMENT | environment,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Driver(self, process, log)

    def registered(self) -> int:
        """Step of the last checkpoint that a new start would resume from; 0 if there is none."""
        text = self.place.read_text("train/mask/checkpoint_manager_snapshot.json")
        try:
            known = json.loads(text or "{}")
        except ValueError:  # just being written
            return 0
        last = known.get("latest_checkpoint_result")
        return int(last["checkpoint_dir_name"].rpartition("-")[2]) if last else 0

    def curve(self) -> dict[int, float]:
        """Step → loss, as TensorBoard shows it: what a restart has overwritten is gone."""
        return curve(self.place.pull("tensorboard/mask", self.folder / "curves"))


class Driver:
    """One start of a run. A context: what is left of it at the end is killed."""

    def __init__(self, run: Run, process: subprocess.Popen[bytes], log: Path) -> None:
        self.run, self.process, self.log = run, process, log

    def __enter__(self) -> "Driver":
        return self

    def __exit__(self, *_: object) -> None:
        kill([self.process.pid, *descendants(self.process.pid)])
        self.process.wait()

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def until(self, what: str, happens: Callable[[], Any]) -> Any:
        """Waits until something happens to a run that is under way; what came of it."""
        ends = time.monotonic() + PATIENCE_S
        while not (got := happens()):
            assert self.process.poll() is None, f"ended before {what}:\n{self.said()}"
            assert time.monotonic() < ends, f"no {what} in {PATIENCE_S:g} s:\n{self.said()}"
            time.sleep(0.02)
        return got

    def reach(self, step: int) -> int:
        """Waits for a checkpoint at `step` or later, and then some steps on; the step of the last one."""
        self.until(f"checkpoint {step}", lambda: self.run.registered() >= step)
        time.sleep(0.15)
        return self.run.registered()

    def ends(self, status: int = 0) -> str:
        """Waits for its end and exit status; what it said."""
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"has not ended in {PATIENCE_S:g} s:\n{self.said()}")
        assert self.process.returncode == status, self.said()
        assert not re.search("^Traceback", self.said(), re.MULTILINE), self.said()
        return self.said()

    def begins(self) -> list[int]:
        """The steps at which this start, and what it started again, has begun."""
        return beginnings(self.said())


def beginnings(said: str) -> list[int]:
    """The steps at which workers have begun, new or resumed, as the command tells them."""
    found = re.findall(r"model: [^\n]*?(?:new|resumed at step (\d+)|trained already)", said)
    return [int(step or 0) for step in found]


def data(folder: Path, labels: Labels) -> Path:
    return prepared.make(folder, config.validate(TINY), labels, maps=12)


def curve(folder: Path) -> dict[int, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    entries = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert len(entries) == len(dict(entries)), "no step twice"
    return dict(entries)


def same(
    curve: dict[int, float], undisturbed: dict[int, float], steps: range, tolerance: float = 1e-5
) -> None:
    """Two curves have all these steps, and the same losses, up to a relative tolerance."""
    for told in (curve, undisturbed):
        missing = sorted(set(steps) - set(told))
        assert not missing, f"without steps {missing}"
    away = {k: abs(curve[k] / undisturbed[k] - 1) for k in steps}
    worst = max(away, key=lambda k: math.inf if math.isnan(away[k]) else away[k])
    assert away[worst] <= tolerance, f"step {worst}: {curve[worst]} instead of {undisturbed[worst]}"
    print(f"steps {steps.start}–{steps.stop - 1}: at most {away[worst]:.1e} away")


def workers(above: int) -> list[int]:
    """Pids of the Ray Train workers below a process, by the titles that Ray gives them."""
    found = []
    for pid in descendants(above):
        with contextlib.suppress(OSError):
            title = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            if title.startswith("ray::") and WORKER in title:
                found.append(pid)
    return sorted(found)


def kill(pids: list[int]) -> None:
    """SIGKILL: nothing is cleaned up."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
