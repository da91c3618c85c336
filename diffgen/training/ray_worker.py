"""One worker of Ray Train: its place among the others, Ray's checkpoints, and the driver's board.

Invariants: a checkpoint is registered whole or not at all; requests of the driver (Ctrl-C) and of the cluster
(a node that will be taken away) reach the loop on every rank.
"""

import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from diffgen import config
from diffgen.errors import UserError
from diffgen.training.checkpoints import name_of
from diffgen.training.loop import DistContext, StopRequest
from diffgen.training.status_actor import INTERVAL_S
from diffgen.training.worker import TrainTask, train_part

NOTICE_EVERY = 10  # steps, at most: a node that is going away gives a minute or two


def work(task: dict[str, Any]) -> None:
    """Train as one of Ray's workers; a user's mistake is told to the driver instead of being tried again."""
    import ray
    import ray.train

    board = task.pop("board")
    if ray.get(board.read.remote())["failure"]:
        return  # these workers are Ray's second try, and the driver knows
    try:
        _train(TrainTask(**task), board)
    except UserError as error:
        ray.get(board.tell.remote(failure=str(error)))
        if ray.train.get_context().get_world_size() > 1:
            raise  # or the others would wait for this one


def _train(task: TrainTask, board: Any) -> None:
    import ray.train
    from ray.train.torch import get_device, prepare_model

    training, context = config.validate(task.settings).training, ray.train.get_context()
    place = DistContext(
        context.get_world_rank(),
        context.get_world_size(),
        get_device(),
        training.precision == "bf16",
        training.readers,
    )
    found = ray.train.get_checkpoint()
    with found.as_directory() if found else nullcontext() as folder, tempfile.TemporaryDirectory() as scratch:
        checkpoint = Path(folder) if folder else None
        link = RayLink(board, place.rank, training.log_every)
        train_part(task, place, checkpoint, link, prepare_model, Path(scratch))
        link.flush()


class RayLink:
    """The way to the driver's board, and to Ray Train."""

    def __init__(self, board: Any, rank: int, log_every: int) -> None:
        self.board, self.rank, self.every = board, rank, min(log_every, NOTICE_EVERY)
        self.told, self.stopping, self.asked = 0.0, False, 0
        self.answer: Any = None
        self.noticed = frozenset[str]()

    def tell(self, **news: Any) -> None:
        self.told, self.answer = time.monotonic(), self.board.tell.remote(**news)

    def flush(self) -> None:
        """Wait until the last news has arrived: with this process it would be lost."""
        import ray

        if self.answer is not None:
            ray.get(self.answer)

    def register(self, metrics: dict[str, float], checkpoint: Path | None) -> None:
        """A barrier of all workers."""
        import ray.train

        if checkpoint is None:
            ray.train.report(metrics)
            return
        made = ray.train.Checkpoint.from_directory(checkpoint)
        ray.train.report(metrics, checkpoint=made, checkpoint_dir_name=name_of(int(metrics["step"])))

    def poll(self) -> StopRequest:
        """Has the driver been told to stop, or a node been told to go?"""
        import ray
        import ray.train

        self.asked += 1
        if self.answer is not None and ray.wait([self.answer], timeout=0)[0]:
            self.stopping, self.answer = ray.get(self.answer), None
        if self.asked % self.every:
            return StopRequest(stop=self.stopping)
        if self.rank == 0 and self.answer is None and time.monotonic() - self.told > INTERVAL_S:
            self.tell()  # also where nothing is logged: the answer is wanted
        notice = ray.train.get_preemption_info()  # a barrier: all ranks ask in the same step
        going = frozenset(notice.preempted_node_ids) if notice else frozenset()
        news, self.noticed = going - self.noticed, self.noticed | going
        return StopRequest(save=bool(news), stop=self.stopping)
