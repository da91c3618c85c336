"""One model in this process, without Ray: the same worker, the same run, the same checkpoints."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from diffgen import config, progress
from diffgen.cluster import apply_malloc_env
from diffgen.training import checkpoints
from diffgen.training.folder import RunFolder
from diffgen.training.loop import DistContext, StopRequest
from diffgen.training.progress_reporter import ProgressReporter
from diffgen.training.signals import Signals, Stopped
from diffgen.training.worker import TrainTask, train_part


def fit_inline(task: TrainTask, run: RunFolder, training: config.Training, console: Console) -> None:
    """Train one model to its last checkpoint, as `fit.fit` does. Raises `UserError`, and `Stopped` on a
    signal."""
    if not training.gpu:
        apply_malloc_env()
    device = torch.device("cuda" if training.gpu else "cpu")
    place = DistContext(device=device, bf16=training.precision == "bf16", readers=training.readers)
    last = checkpoints.last(run, task.part)
    with progress.bar(console) as bar, tempfile.TemporaryDirectory() as scratch:
        folder = run.pull(last, Path(scratch) / "checkpoint") if last else None
        link = InlineLink(run, task.part, training, bar)
        with Signals(link.stop) as signals:
            train_part(task, place, folder, link, lambda model: model, Path(scratch))
    if signals.first:
        raise Stopped(signals.first)


class InlineLink:
    """The way to the console, and to the run's folder."""

    def __init__(self, run: RunFolder, part: str, training: config.Training, bar: Any) -> None:
        self.run, self.part, self.keep = run, part, training.keep_checkpoints
        self.teller = ProgressReporter(bar, part, getattr(training, part).steps, "starting")
        self.stopping = False

    def tell(self, **news: Any) -> None:
        self.teller.hear(news)

    def register(self, metrics: dict[str, float], checkpoint: Path | None) -> None:
        assert checkpoint is not None, "there is one rank"
        checkpoints.register(self.run, self.part, checkpoint, metrics, self.keep)

    def poll(self) -> StopRequest:
        return StopRequest(stop=self.stopping)

    def stop(self) -> None:
        self.stopping = True
