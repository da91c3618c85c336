"""The training loop of one worker: no Ray in here.

Invariants: a step's gradient is that of its global batch, whatever the number of workers and
micro-batches; a checkpoint holds all that the next step depends on, so a resumed run takes the same
steps as an undisturbed one; all workers save, stop and fail in the same step.
"""

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from diffgen.errors import UserError
from diffgen.training.algorithm import Batch, BatchSource, Objective, share
from diffgen.training.meters import Meters
from diffgen.training.train_state import Fitting, TrainState

T = TypeVar("T")
HELD_OUT = 64  # samples that the held-out loss is the mean of
SPIKE_OF, SPIKE_OVER = 20, 100  # the mean of so many steps against the median of so many before them


@dataclass(frozen=True)
class DistContext:
    """Where a worker stands among the others, and how it computes."""

    rank: int = 0
    workers: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    bf16: bool = False
    readers: int = 0

    def total(self, values: Sequence[float | Tensor]) -> list[float]:
        """Sums over all workers; every worker must call it equally often."""
        tensor = torch.stack(
            [torch.as_tensor(v, dtype=torch.float32, device=self.device).detach() for v in values]
        )
        if self.workers > 1:
            torch.distributed.all_reduce(tensor)
        summed: list[float] = tensor.tolist()
        return summed

    def autocast(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()


@dataclass(frozen=True)
class StopRequest:
    """What the world outside asks of the loop."""

    save: bool = False
    stop: bool = False


@dataclass(frozen=True)
class Hooks:
    """What the loop calls out for; the launch ties them to Ray Train, tests to plain functions."""

    log: Callable[[int, dict[str, float]], None] = lambda _step, _figures: None
    """(step, figures) once in `log_every` steps, on rank 0 only."""
    save: Callable[[int], None] = lambda _step: None
    """(step) at intervals, on every rank."""
    held_out: Callable[[int, float], None] = lambda _step, _loss: None
    """(step, held-out loss) once the step is saved, on every rank."""
    sample: Callable[[int, nn.Module], None] = lambda _step, _unet: None
    """(step, U-Net with averaged weights) at intervals, on rank 0 only."""
    poll: Callable[[], StopRequest] = StopRequest
    """Asked once per step on every rank; a request of one is carried out by all, in the same step."""


def train(
    fitting: Fitting,
    model: nn.Module,
    place: DistContext,
    hooks: Hooks,
    log_every: int = 1,
    spike: float = math.inf,
) -> bool:
    """Steps towards the objective until the state is finished, or until a request to stop; whether it is.

    `model` is the state's network, or the DDP around it. Raises `UserError`, on all ranks in the same
    step and before the weights change, where loss or gradient is not finite or the loss has a spike: the last
    checkpoint is good.
    """
    state, objective = fitting.state, fitting.objective
    part, began = state.part, time.perf_counter() - state.elapsed
    state.unet.train()
    recent = deque[float](maxlen=SPIKE_OF + SPIKE_OVER)
    log = Log(part.batch, fitting.names)
    reader = partial(_read, fitting.source, part.batch, part.micro_batch, place)
    with closing(read_ahead(reader, range(state.step, part.steps), place.readers)) as batches:
        while not state.finished:
            log.begin()
            pieces = next(batches)
            log.waited()
            summed = torch.zeros((), device=place.device)
            for k, piece in enumerate(pieces):
                batch, last = piece.to(place.device), k == len(pieces) - 1
                with _alone(model) if not last else nullcontext(), place.autocast():
                    loss = objective(model, batch)
                    # DDP takes the mean over workers; the gradient wanted is that of the batch's mean.
                    mean = loss.descended.sum() * (place.workers / part.batch)
                    mean.backward()  # type: ignore[no-untyped-call]  # torch's is not annotated
                summed += loss.samples.detach().sum()
                objective.measure(log.meters, loss, batch)
            norm = nn.utils.clip_grad_norm_(state.unet.parameters(), part.clip)
            asked = hooks.poll()
            seconds = (time.perf_counter() - began) / place.workers
            total, save, stop, elapsed = place.total([summed / part.batch, asked.save, asked.stop, seconds])
            _check(state.step + 1, total, float(norm), recent, spike)
            state.elapsed = elapsed  # the mean of all workers: they end in the same step
            rate = state.advance()
            log.end(total, float(norm), rate)
            due = state.step % part.checkpoint_every == 0 or state.finished
            if place.rank == 0 and (state.step % log_every == 0 or state.finished):
                hooks.log(state.step, log.figures())
            if place.rank == 0 and (state.step % part.sample_every == 0 or state.finished):
                state.averaged(partial(hooks.sample, state.step))
            if due or save or stop:
                hooks.save(state.step)  # first: whatever happens to the held-out loss, the step is safe
                hooks.held_out(state.step, held_out_loss(state, fitting.held_out, objective, place))
            if stop:
                return False
    return True


def _read(
    source: BatchSource, batch: int, micro_batch: int | None, place: DistContext, step: int
) -> list[Batch]:
    """This worker's micro-batches of a step."""
    pieces = share(source.sides(step, batch), place.rank, place.workers, micro_batch)
    return [source.batch(step, piece) for piece in pieces]


def read_ahead(read: Callable[[int], T], steps: range, readers: int) -> Generator[T, None, None]:
    """`read` of each step in order, one step more ahead than there are `readers`; to be closed.

    In threads, not in the processes of torch's DataLoader: live crops are encoded on the device. A batch is a
    function of its step, so this changes nothing but the time a worker waits. With no readers each is read
    when it is asked for. An error of `read` is raised where its turn comes.
    """
    if not readers:
        yield from map(read, steps)
        return
    pool = ThreadPoolExecutor(readers, thread_name_prefix="reader")
    try:
        ahead = deque(pool.submit(read, step) for step in steps[: readers + 1])
        for following in range(readers + 1, len(steps) + readers + 1):
            yield ahead.popleft().result()
            if following < len(steps):
                ahead.append(pool.submit(read, steps[following]))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _alone(model: nn.Module) -> Any:
    """Gradients of all micro-batches but the last stay with their worker."""
    no_sync: Any = getattr(model, "no_sync", nullcontext)
    return no_sync()


def _check(step: int, loss: float, norm: float, recent: deque[float], spike: float) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        what = "gradient" if math.isfinite(loss) else "loss"
        raise UserError(
            f"training: the {what} is not finite in step {step}; the last checkpoint is kept. "
            "The same command resumes from there, with a smaller lr"
        )
    recent.append(loss)
    if len(recent) == recent.maxlen:
        values = list(recent)
        before, now = statistics.median(values[:SPIKE_OVER]), statistics.fmean(values[SPIKE_OVER:])
        if now > spike * before:
            raise UserError(
                f"training: the loss rose from {before:.3g} to {now:.3g} by step {step} (training.spike "
                f"{spike:g}); the last checkpoint is kept. The same command resumes from there, with a "
                "smaller lr or clip"
            )


@torch.no_grad()
def held_out_loss(state: TrainState, source: BatchSource, objective: Objective, place: DistContext) -> float:
    """Mean loss of the averaged weights on a fixed set of held-out samples, times and noises."""
    losses = [torch.zeros((), device=place.device)]  # of more than 64 workers some have no sample

    def add(unet: nn.Module) -> None:
        for piece in _read(source, HELD_OUT, state.part.micro_batch or state.part.batch, place, 0):
            with place.autocast():
                losses.append(objective(unet, piece.to(place.device)).samples.sum())

    state.averaged(add)
    return place.total([torch.stack(losses).sum()])[0] / HELD_OUT


class Log:
    """Figures of the steps since the last entry."""

    def __init__(self, batch: int, names: Sequence[str]) -> None:
        self.batch, self.names, self.meters = batch, names, Meters()
        self._reset()

    def _reset(self) -> None:
        self.steps, self.loss, self.norm, self.rate, self.waiting, self.seconds = 0, 0.0, 0.0, 0.0, 0.0, 0.0

    def begin(self) -> None:
        self.began = time.perf_counter()

    def waited(self) -> None:
        self.waiting += time.perf_counter() - self.began

    def end(self, loss: float, norm: float, rate: float) -> None:
        self.steps += 1
        self.loss, self.norm, self.rate = self.loss + loss, self.norm + norm, rate
        self.seconds += time.perf_counter() - self.began

    def figures(self) -> dict[str, float]:
        """Means per step, and what the meters have seen; begins anew."""
        steps_per_s = self.steps / self.seconds
        figures = {
            "loss": self.loss / self.steps,
            "gradient_norm": self.norm / self.steps,
            "lr": self.rate,
            "steps_per_s": steps_per_s,
            "images_per_s": steps_per_s * self.batch,
            "data_wait_share": self.waiting / self.seconds,
            **self.meters.figures(self.names),
        }
        self._reset()
        return figures
