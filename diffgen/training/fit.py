"""One model on Ray Train, watched from the driver.

Invariants: Ctrl-C and SIGTERM save before they stop; a second one does not wait. A run of the same name in
the same storage resumes from its last checkpoint, which is Ray Train's own rule.
"""

import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from rich.console import Console

from diffgen import config, progress
from diffgen.cluster import actor_runtime_env
from diffgen.errors import UserError
from diffgen.training.folder import RunFolder
from diffgen.training.progress_reporter import ProgressReporter
from diffgen.training.ray_worker import work
from diffgen.training.signals import Signals, Stopped
from diffgen.training.status_actor import INTERVAL_S, StatusActor
from diffgen.training.worker import TrainTask


def fit(task: TrainTask, run: RunFolder, training: config.Training, console: Console) -> None:
    """Train one model to its last checkpoint. Raises `UserError` where it fails, `Stopped` on a signal."""
    import ray

    board = ray.remote(num_cpus=0, scheduling_strategy=_here())(StatusActor).remote()
    failed: list[BaseException] = []

    def run_it() -> None:
        try:
            fit_with_retries(
                lambda: _trainer(asdict(task) | {"board": board}, task.part, run, training).fit(),
                lambda: ray.get(board.read.remote())["saved"],
            )
        except BaseException as error:  # told in the driver's own thread
            failed.append(error)

    # Not in the main thread: there Ray Train would take Ctrl-C for itself, and stop without saving.
    thread = threading.Thread(target=run_it, daemon=True)
    signals = Signals(board.stop.remote)
    with progress.bar(console) as bar, signals:
        thread.start()
        _watch(
            thread,
            board,
            ProgressReporter(bar, task.part, getattr(training, task.part).steps, "starting workers"),
        )
    news = ray.get(board.read.remote())
    if news["failure"]:
        raise UserError(news["failure"])
    if failed:
        _tell(failed[0], task.part)
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


def _here() -> Any:
    """The driver's own node: elsewhere the board could be lost with a worker's."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _tell(error: BaseException, part: str) -> None:
    from ray.train import TrainingFailedError

    if isinstance(error, TrainingFailedError):
        cause = str(error).strip().splitlines()[-1]
        raise UserError(f"training of the {part} model failed: {cause}; the same command resumes") from error
    raise error


def _trainer(task: dict[str, Any], part: str, run: RunFolder, training: config.Training) -> Any:
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    least, most = training.worker_range
    filesystem, path = run.storage()
    return TorchTrainer(
        work,
        train_loop_config=task,
        scaling_config=ray.train.ScalingConfig(
            num_workers=least if least == most else (least, most),
            use_gpu=training.gpu,
            resources_per_worker={"CPU": training.threads} | ({"GPU": 1} if training.gpu else {}),
        ),
        torch_config=TorchConfig(backend="nccl" if training.gpu else "gloo"),
        run_config=ray.train.RunConfig(
            name=part,
            storage_path=f"{path}/train",
            storage_filesystem=filesystem,
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=training.keep_checkpoints),
            failure_config=ray.train.FailureConfig(max_failures=training.max_failures),
            worker_runtime_env=actor_runtime_env(training.gpu),
        ),
    )


def _watch(thread: threading.Thread, board: Any, teller: ProgressReporter) -> None:
    """Draw what rank 0 tells the board, until the training ends."""
    import ray

    while True:
        last = not thread.is_alive()
        teller.hear(ray.get(board.read.remote()), last)
        if last:
            return
        thread.join(INTERVAL_S)
