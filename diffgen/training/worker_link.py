"""The way from a worker to the driver: its place among the others, checkpoints, news, requests to stop.

Invariants: a checkpoint is registered whole or not at all; requests of the driver (Ctrl-C) and of the cluster
(a node that will be taken away) reach the loop on every rank; a user's mistake in a worker is told to the
driver instead of being tried again.
"""

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import nn

from diffgen import config
from diffgen.errors import UserError
from diffgen.models.device import computes_bf16
from diffgen.storage import Folder
from diffgen.training import checkpoints
from diffgen.training.loop import DistContext, StopRequest
from diffgen.training.status_actor import INTERVAL_S

NOTICE_EVERY = 10  # steps, at most: a node that is going away gives a minute or two


class Link(Protocol):
    """Entered by the worker, which is told its place and where to resume."""

    place: DistContext
    checkpoint: Path | None
    """Folder of the last one."""
    over: bool
    """Nothing is to be done: the driver knows of a mistake."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool | None: ...

    def wrap(self, network: Any) -> nn.Module:
        """The network, gathering gradients of all workers."""
        ...

    def tell(self, **news: Any) -> None:
        """News of rank 0: `step` of `of`, `loss`, `images_per_s`, `saved`; lines `start`, `note`, `end`."""
        ...

    def register(self, metrics: dict[str, float], checkpoint: Path | None) -> None:
        """Keep a checkpoint of `metrics["step"]` as the last one; called on all ranks, None but on rank 0."""
        ...

    def poll(self) -> StopRequest:
        """Asked once per step on every rank."""
        ...


class InlineLink:
    """To the driver in the same process, and to the run's folder."""

    over = False

    def __init__(
        self, run: Folder, part: str, training: config.Training, update: Callable[[dict[str, Any]], None]
    ) -> None:
        self.run, self.part, self.keep, self.update = run, part, training.keep_checkpoints, update
        device = torch.device("cuda" if training.gpu else "cpu")
        bf16 = computes_bf16(training.precision, device)
        self.place = DistContext(device=device, bf16=bf16, readers=training.readers)
        self.stopping = False

    def __enter__(self) -> Self:
        self._scratch = tempfile.TemporaryDirectory()
        last = checkpoints.last(self.run, self.part)
        self.checkpoint = self.run.pull(last, Path(self._scratch.name)) if last else None
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._scratch.cleanup()

    def wrap(self, network: Any) -> nn.Module:
        return network  # type: ignore[no-any-return]  # a network of any kind

    def tell(self, **news: Any) -> None:
        self.update(news)

    def register(self, metrics: dict[str, float], checkpoint: Path | None) -> None:
        assert checkpoint is not None, "there is one rank"
        checkpoints.register(self.run, self.part, checkpoint, metrics, self.keep)

    def poll(self) -> StopRequest:
        return StopRequest(stop=self.stopping)

    def stop(self) -> None:
        self.stopping = True


class RayLink:
    """To the driver's `StatusActor`, and to Ray Train; made by the driver, entered by each worker."""

    def __init__(self, status: Any, training: config.Training) -> None:
        self.status, self.training = status, training
        self.every = min(training.log_every, NOTICE_EVERY)
        self.told_at, self.stopping, self.asked = 0.0, False, 0
        self.answer: Any = None
        self.noticed = frozenset[str]()

    def __enter__(self) -> Self:
        import ray
        import ray.train
        from ray.train.torch import get_device

        self._stack, self.checkpoint = ExitStack(), None
        # Or these workers are Ray's second try, after a mistake that the driver knows.
        self.over = ray.get(self.status.read.remote())["failure"] is not None
        if not self.over:
            context, training, device = ray.train.get_context(), self.training, get_device()
            self.place = DistContext(
                context.get_world_rank(), context.get_world_size(), device,
                computes_bf16(training.precision, device), training.readers,
            )  # fmt: skip
            if (found := ray.train.get_checkpoint()) is not None:
                self.checkpoint = Path(self._stack.enter_context(found.as_directory()))
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        """Wait until the last news has arrived: with this process it would be lost."""
        import ray

        self._stack.close()
        if isinstance(error, UserError):
            ray.get(self.status.tell.remote(failure=str(error)))
            return self.place.workers == 1  # of more, the others would wait for this one
        if error is None and self.answer is not None:
            ray.get(self.answer)
        return False

    def wrap(self, network: Any) -> nn.Module:
        from ray.train.torch import prepare_model

        return prepare_model(network)  # type: ignore[no-any-return]  # Ray says Any

    def tell(self, **news: Any) -> None:
        self.told_at, self.answer = time.monotonic(), self.status.tell.remote(**news)

    def register(self, metrics: dict[str, float], checkpoint: Path | None) -> None:
        """A barrier of all workers."""
        import ray.train

        if checkpoint is None:
            ray.train.report(metrics)
            return
        made, name = (
            ray.train.Checkpoint.from_directory(checkpoint),
            checkpoints.name_of(int(metrics["step"])),
        )
        ray.train.report(metrics, checkpoint=made, checkpoint_dir_name=name)

    def poll(self) -> StopRequest:
        """Has the driver been told to stop, or a node been told to go?"""
        import ray
        import ray.train

        self.asked += 1
        if self.answer is not None and ray.wait([self.answer], timeout=0)[0]:
            self.stopping, self.answer = ray.get(self.answer), None
        if self.asked % self.every:
            return StopRequest(stop=self.stopping)
        if self.place.rank == 0 and self.answer is None and time.monotonic() - self.told_at > INTERVAL_S:
            self.tell()  # also where nothing is logged: the answer is wanted
        notice = ray.train.get_preemption_info()  # a barrier: all ranks ask in the same step
        going = frozenset(notice.preempted_node_ids) if notice else frozenset()
        news, self.noticed = going - self.noticed, self.noticed | going
        return StopRequest(save=bool(news), stop=self.stopping)
