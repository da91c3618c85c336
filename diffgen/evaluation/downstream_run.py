"""Use and agreement, run: networks one after the other `inline`, or divided among workers of Ray Train.

Invariants: both give the same files; what is finished is not done again.
"""

import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from diffgen import progress
from diffgen.cluster import actor_runtime_env, connect, need
from diffgen.config import Downstream
from diffgen.errors import UserError
from diffgen.evaluation.agreement import Agreement, agreement
from diffgen.evaluation.downstream import (
    DownstreamResults,
    Experiment,
    classification_figures,
    experiments,
    segmentation_figures,
    table,
)
from diffgen.evaluation.downstream_jobs import Job, plan, run
from diffgen.evaluation.features import RegionCounter
from diffgen.evaluation.images import RegionSet
from diffgen.labels import Labels

INTERVAL_S = 0.5
"""Between looks at how far the workers are."""
MAX_FAILURES = 3
"""Lost workers, before it is given up; what was finished is kept, and the same command resumes."""
STORAGE = "ray-train"


def evaluate_use(
    real: RegionSet,
    synthetic: RegionSet,
    test: RegionSet,
    settings: Downstream,
    cache: Path,
    inline: bool,
    threads: int,
    gpu: bool,
    console: Console,
) -> DownstreamResults:
    """Networks trained on `real`, `synthetic` and both, on `test`: mean and deviation over seeds.

    Regions are of one side, and `test` is of sources that neither the networks nor the generator saw.
    Regions without labels are left out. With Ray, `cache` is a folder that all nodes see. Raises
    `UserError`, before any training, where the data does not serve (see `use_jobs.plan`).
    """
    labels, jobs, regions = plan(experiments(settings), real, synthetic, test, settings, cache)
    execute(jobs, cache, inline, threads, gpu, console)
    rows = table([(job.experiment, _figures(job, labels)) for job in jobs])
    return DownstreamResults(rows, settings.seeds, regions)


def evaluate_agreement(
    real: RegionSet,
    synthetic: RegionSet,
    test: RegionSet,
    settings: Downstream,
    cache: Path,
    inline: bool,
    threads: int,
    gpu: bool,
    console: Console,
) -> Agreement:
    """How well `synthetic` and `test` images agree with their own masks, judged by segmenters of `real`.

    These are the networks of `evaluate_use` that learned from all real images; whichever is called first
    trains them. Otherwise as there.
    """
    asked = [Experiment("segmentation", "real", None, seed) for seed in range(settings.seeds)]
    labels, jobs, _ = plan(asked, real, synthetic, test, settings, cache)
    execute(jobs, cache, inline, threads, gpu, console)
    found = [
        agreement([job.outcomes(number) for job in jobs], crops.labelled.groups, labels, crops.images.where)
        for number, crops in ((1, synthetic), (0, test))
    ]
    return Agreement(*found)


def execute(
    jobs: Sequence[Job], cache: Path, inline: bool, threads: int, gpu: bool, console: Console
) -> None:
    """Do the jobs that are not done. `UserError` where an image cannot be read or workers are lost."""
    # So few real images may be all there are: one network then serves two experiments.
    once = {job.weights: job for job in sorted(jobs, key=lambda job: len(job.judged))}
    todo = [job for job in jobs if job.missing and once[job.weights] is job]
    if not todo:
        return
    with progress.bar(console) as bar:
        total = sum(job.cost for job in todo)
        shown = bar.add_task("downstream", total=total, figures=f"steps of {len(todo)} networks")
        if inline:
            torch.set_num_threads(threads)
            for job in todo:
                run(job, "cuda" if gpu else "cpu", lambda count: bar.advance(shown, count))
        else:
            _on_ray(todo, cache, threads, gpu, lambda count: bar.update(shown, completed=min(count, total)))
        bar.update(shown, completed=total)


def _figures(job: Job, labels: Labels) -> dict[str, float]:
    if job.experiment.task == "segmentation":
        return segmentation_figures(job.outcomes(), labels)
    return classification_figures(job.outcomes())


class JobBoard(RegionCounter):
    """An actor that counts batches, and hears of a user's mistake."""

    failure = ""

    def fail(self, why: str) -> None:
        self.failure = self.failure or why

    def failed(self) -> str:
        return self.failure


def work(task: dict[str, Any]) -> None:
    """One worker of Ray Train: every n-th job."""
    import ray
    import ray.train
    from ray.train.torch import get_device

    board, context = task["board"], ray.train.get_context()
    torch.set_num_threads(task["threads"])
    try:
        for job in task["jobs"][context.get_world_rank() :: context.get_world_size()]:
            if ray.get(board.failed.remote()):
                return
            if job.missing:  # a worker that takes the place of a lost one goes on
                run(job, str(get_device()), board.add.remote)
    except UserError as error:
        ray.get(board.fail.remote(str(error)))


def _on_ray(jobs: Sequence[Job], cache: Path, threads: int, gpu: bool, tell: Callable[[int], None]) -> None:
    connect()
    import ray
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    need(threads, 1 if gpu else 0, f"threads={threads}, gpu={gpu}")
    have = ray.cluster_resources()
    fitting = min(have.get("CPU", 0) // threads, have.get("GPU", 0) if gpu else len(jobs))
    board = ray.remote(num_cpus=0)(JobBoard).remote()
    storage = cache.absolute() / STORAGE
    trainer = TorchTrainer(
        work,
        train_loop_config={"jobs": list(jobs), "threads": threads, "board": board},
        scaling_config=ray.train.ScalingConfig(
            num_workers=max(1, min(int(fitting), len(jobs))),
            use_gpu=gpu,
            resources_per_worker={"CPU": threads} | ({"GPU": 1} if gpu else {}),
        ),
        torch_config=TorchConfig(backend="gloo"),  # workers have nothing to say to each other
        run_config=ray.train.RunConfig(
            name="downstream",
            storage_path=str(storage),
            failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
            worker_runtime_env=actor_runtime_env(gpu),
        ),
    )
    ended: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # told in the driver's own thread
            ended.append(error)

    # Not in the main thread: there Ray Train would take Ctrl-C for itself.
    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(INTERVAL_S)
        tell(ray.get(board.read.remote()))
    shutil.rmtree(storage, ignore_errors=True)  # nothing is kept there: jobs have their own files
    if failure := ray.get(board.failed.remote()):
        raise UserError(failure)
    if ended:
        if isinstance(ended[0], ray.train.TrainingFailedError):
            cause = str(ended[0]).strip().splitlines()[-1]
            raise UserError(f"downstream training failed: {cause}; the same command resumes") from ended[0]
        raise ended[0]
