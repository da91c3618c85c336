"""Independent tasks of an evaluation: on Ray, or one after the other in this process.

Invariants: a task keeps its result in a file of its own, so a command that was stopped resumes with what it
lacks; the number of threads is the same either way, and so are the bytes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console

from diffgen import progress
from diffgen.cluster import connect, need, networks_on
from diffgen.errors import UserError

MAX_RETRIES = 3
"""Workers lost with a task, before it is given up."""


@dataclass(frozen=True)
class Workers:
    """What tasks run on."""

    threads: int
    gpu: bool
    inline: bool
    console: Console

    @property
    def device(self) -> str:
        return "cuda" if self.gpu else "cpu"

    def run(
        self,
        function: Callable[..., None],
        tasks: Sequence[tuple[Any, ...]],
        costs: Sequence[int],
        what: str,
        unit: str,
    ) -> None:
        """`function(*task, device)` for every task, with a bar of their costs.

        The first argument of a task, which many may share, is sent to a node once. Raises the first
        `UserError` of a task; what was finished by then is kept.
        """
        if not tasks:
            return
        with progress.bar(self.console) as bar:
            row = bar.add_task(what, total=sum(costs), figures=unit)
            for number in (self._here if self.inline else self._on_ray)(function, tasks):
                bar.advance(row, costs[number])

    def _here(self, function: Callable[..., None], tasks: Sequence[tuple[Any, ...]]) -> Iterator[int]:
        for number, task in enumerate(tasks):
            _compute(function, self.threads, *task, self.device)
            yield number

    def _on_ray(self, function: Callable[..., None], tasks: Sequence[tuple[Any, ...]]) -> Iterator[int]:
        connect()
        import ray

        need(self.threads, int(self.gpu), f"threads={self.threads}, gpu={self.gpu}")
        remote = networks_on(self.threads, self.gpu, max_retries=MAX_RETRIES)(_compute)
        shared = {id(task[0]): ray.put(task[0]) for task in tasks}
        numbers = {
            remote.remote(function, self.threads, shared[id(task[0])], *task[1:], self.device): number
            for number, task in enumerate(tasks)
        }
        waiting = list(numbers)
        try:
            while waiting:
                (done,), waiting = ray.wait(waiting)
                ray.get(done)
                yield numbers[done]
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise UserError(str(error.cause)) from error
            raise
        finally:
            for task in waiting:
                ray.cancel(task, force=True)


def _compute(function: Callable[..., None], threads: int, *arguments: Any) -> None:
    torch.set_num_threads(threads)
    function(*arguments)
