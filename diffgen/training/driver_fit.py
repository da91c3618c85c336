"""Driver: one model trained to its end, on Ray Train's workers or in this process, with a bar and on signals.

Invariants: Ctrl-C and SIGTERM save before they stop; a second one does not wait. A run of the same name in
the same storage resumes from its last checkpoint, which is Ray Train's own rule.
"""

import signal
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rich.console import Console

from diffgen import config, progress
from diffgen.cluster import actor_runtime_env, apply_malloc_env, beside_driver, check_versions
from diffgen.errors import UserError
from diffgen.storage import Folder
from diffgen.training.status_actor import INTERVAL_S, StatusActor
from diffgen.training.worker import TrainTask, train_part
from diffgen.training.worker_link import InlineLink, RayLink

LINES = ("start", "note", "end")
"""Of the news, those that are printed."""
STOPS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal came, all is saved: `signal` says which."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = number


class Signals:
    """While it is entered, the first signal calls `stop`, the second raises `KeyboardInterrupt`."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self.stop, self.first = stop, 0

    def __enter__(self) -> "Signals":
        here = threading.current_thread() is threading.main_thread()  # elsewhere none can be caught
        self.before = {number: signal.signal(number, self._on) for number in STOPS} if here else {}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _on(self, number: int, _frame: object) -> None:
        if self.first:
            raise KeyboardInterrupt
        self.first = number
        self.stop()


class ProgressReporter:
    """Draws news of rank 0 (`worker_link.Link.tell`) on a bar; prints each line once."""

    def __init__(self, bar: Any, part: str, steps: int, waiting: str) -> None:
        self.bar, self.printed = bar, dict[str, str | None]()
        self.task = bar.add_task(f"train {part}", total=steps, figures=waiting)

    def update(self, news: Mapping[str, Any], last: bool = False) -> None:
        for kind in LINES:
            if (line := news.get(kind)) and line != self.printed.get(kind):
                self.printed[kind] = line
                self.bar.console.print(line)
        changes = {name: news[key] for name, key in (("total", "of"), ("completed", "step")) if key in news}
        if "loss" in news:
            changes["figures"] = f"loss {news['loss']:.4f}  {news['images_per_s']:.1f} images/s"
        elif last:  # all steps were done before
            changes["figures"] = ""
        self.bar.update(self.task, **changes)


def fit_inline(task: TrainTask, training: config.Training, console: Console) -> None:
    """Train one model to its last checkpoint in this process, without Ray. Raises `UserError` where it fails,
    `Stopped` on a signal."""
    if not training.gpu:
        apply_malloc_env()
    with progress.bar(console) as bar:
        reporter = ProgressReporter(bar, task.part, getattr(training, task.part).steps, "starting")
        link = InlineLink(Folder(task.run), task.part, training, reporter.update)
        with Signals(link.stop) as signals:
            train_part(task, link)
    if signals.first:
        raise Stopped(signals.first)


def fit_on_ray(task: TrainTask, training: config.Training, console: Console) -> None:
    """Train one model to its last checkpoint on Ray Train's workers. Raises as `fit_inline` does."""
    import ray
    from ray.train import TrainingFailedError

    check_versions(training.gpu)
    status = ray.remote(num_cpus=0, scheduling_strategy=beside_driver())(StatusActor).remote()
    failed: list[BaseException] = []

    def fit() -> None:
        try:
            fit_with_retries(
                lambda: _trainer(task, RayLink(status, training), training).fit(),
                lambda: ray.get(status.read.remote())["saved"],
            )
        except BaseException as error:  # raised in the driver's own thread
            failed.append(error)

    # Not in the main thread: there Ray Train would take Ctrl-C for itself, and stop without saving.
    thread = threading.Thread(target=fit, daemon=True)
    with progress.bar(console) as bar, Signals(status.stop.remote) as signals:
        steps = getattr(training, task.part).steps
        reporter = ProgressReporter(bar, task.part, steps, "starting workers")
        thread.start()
        while thread.is_alive():
            reporter.update(ray.get(status.read.remote()))
            thread.join(INTERVAL_S)
        news = ray.get(status.read.remote())
        reporter.update(news, last=True)
    if news["failure"]:
        raise UserError(news["failure"])
    if failed and isinstance(failed[0], TrainingFailedError):
        cause = str(failed[0]).strip().splitlines()[-1]
        raise UserError(
            f"training of the {task.part} model failed: {cause}; the same command resumes"
        ) from failed[0]
    if failed:
        raise failed[0]
    if signals.first:
        raise Stopped(signals.first)


def fit_with_retries(attempt: Callable[[], Any], saved: Callable[[], int]) -> Any:
    """What `attempt` gives, begun anew when it fails as long as checkpoints were `saved` meanwhile.

    Ray Train counts failures over the whole training: here `max_failures` are those at one place.
    """
    from ray.train import TrainingFailedError

    while True:
        before = saved()
        try:
            return attempt()
        except TrainingFailedError:
            if saved() <= before:
                raise


def _trainer(task: TrainTask, link: RayLink, training: config.Training) -> Any:
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    least, most = training.worker_range
    filesystem, path = Folder(task.run).storage()
    return TorchTrainer(
        partial(train_part, task, link),
        scaling_config=ray.train.ScalingConfig(
            num_workers=least if least == most else (least, most),
            use_gpu=training.gpu,
            resources_per_worker={"CPU": training.threads} | ({"GPU": 1} if training.gpu else {}),
        ),
        torch_config=TorchConfig(backend="nccl" if training.gpu else "gloo"),
        run_config=ray.train.RunConfig(
            name=task.part,
            storage_path=f"{path}/train",
            storage_filesystem=filesystem,
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=training.keep_checkpoints),
            failure_config=ray.train.FailureConfig(max_failures=training.max_failures),
            worker_runtime_env=actor_runtime_env(training.gpu),
        ),
    )
