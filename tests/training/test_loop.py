import math
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffgen import config
from diffgen.data.stream import PatchTable
from diffgen.errors import UserError
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.models.mask_codec import LabelBits
from diffgen.sampling.solvers import noise_schedule
from diffgen.training.algorithm import Batch, DiffusionLoss, NoiseLevels
from diffgen.training.loop import (
    HELD_OUT,
    SPIKE_OF,
    SPIKE_OVER,
    DistContext,
    Hooks,
    StopRequest,
    held_out_loss,
    read_ahead,
    train,
)
from diffgen.training.mask_source import MaskSource
from diffgen.training.train_state import Fitting, TrainState
from tests.data import prepared

OBJECTIVE = DiffusionLoss(noise_schedule(1000, "squaredcos_cap_v2", "epsilon"))

LEVELS = NoiseLevels(np.linspace(9, -9, 1000))


def trainee(tiny: config.Settings, labels: Labels, **part: Any) -> TrainState:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return TrainState(bundle.new_mask_unet(tiny, labels, 3), config.ModelTraining(**part))


@pytest.fixture(scope="module")
def source(tiny: config.Settings, labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> MaskSource:
    folder = prepared.make(tmp_path_factory.mktemp("data"), tiny, labels)
    return MaskSource(PatchTable(folder, "mask"), LabelBits(len(labels)), 0.5, LEVELS, seed=0)


def fitting(made: TrainState, source: Any, held_out: Any = None) -> Fitting:
    return Fitting(made, OBJECTIVE, source, held_out or source, lambda _: np.zeros((1, 1, 3), np.uint8))


def losses_of(made: TrainState, source: Any, place: DistContext | None = None, **hooks: Any) -> list[float]:
    losses: list[float] = []

    def log(step: int, figures: dict[str, float]) -> None:
        del step
        losses.append(figures["loss"])

    train(fitting(made, source), made.unet, place or DistContext(), Hooks(log=log, **hooks))
    return losses


class Fixed:
    """The same batch in every step, or one that a function makes of it."""

    def __init__(self, source: MaskSource, change: Any = None) -> None:
        self.made, self.change = source.batch(0, range(8)), change

    def sides(self, step: int, batch: int) -> list[int]:
        del step
        return [8] * batch

    def batch(self, step: int, samples: Sequence[int]) -> Batch:
        rows = [j % 8 for j in samples]
        made = self.made
        part = Batch(made.clean[rows], made.condition[rows], made.timestep[rows], made.noise[rows])
        return self.change(step, part) if self.change else part


def test_loss_falls_on_a_fixed_batch(tiny: config.Settings, labels: Labels, source: MaskSource) -> None:
    losses = losses_of(trainee(tiny, labels, steps=80, batch=8, lr=5e-3), Fixed(source))
    assert len(losses) == 80
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


@pytest.mark.parametrize(("micro_batch", "readers"), [(1, 0), (3, 2), (8, 1)])
def test_micro_batches_and_readers_change_nothing(
    tiny: config.Settings, labels: Labels, source: MaskSource, micro_batch: int, readers: int
) -> None:
    whole = losses_of(trainee(tiny, labels, steps=6, batch=8), source)
    parts = trainee(tiny, labels, steps=6, batch=8, micro_batch=micro_batch)
    assert losses_of(parts, source, DistContext(readers=readers)) == pytest.approx(whole, rel=1e-4)


def test_a_resumed_run_takes_the_same_steps(
    tiny: config.Settings, labels: Labels, source: MaskSource, tmp_path: Path
) -> None:
    part = {"steps": 8, "batch": 4, "checkpoint_every": 4, "sample_every": 4, "ema_every": 2}
    sampled, held_out = list[int](), list[float]()
    one = trainee(tiny, labels, **part)

    hooks = {
        "save": lambda step: one.write(tmp_path / str(step)),
        "held_out": lambda step, loss: held_out.append(loss),  # noqa: ARG005
        "sample": lambda step, unet: sampled.append(step),  # noqa: ARG005
    }
    whole = losses_of(one, source, **hooks)
    other = trainee(tiny, labels, **part)
    other.read(tmp_path / "4")
    assert other.step == 4
    assert losses_of(other, source) == whole[4:]
    assert sampled == [4, 8]
    assert all(0 < loss < 10 for loss in held_out)
    for mine, theirs in zip(one.ema.shadow_params, other.ema.shadow_params, strict=True):
        assert torch.equal(mine, theirs)


def test_samples_come_from_the_averaged_weights(
    tiny: config.Settings, labels: Labels, source: MaskSource
) -> None:
    made = trainee(tiny, labels, steps=4, batch=4, sample_every=4)
    seen: list[torch.Tensor] = []

    def sample(step: int, unet: Any) -> None:
        del step
        seen.extend(parameter.detach().clone() for parameter in unet.parameters())

    losses_of(made, source, sample=sample)
    assert all(torch.equal(a, b) for a, b in zip(seen, made.ema.shadow_params, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(seen, made.unet.parameters(), strict=True))


@pytest.mark.parametrize("stop", [True, False])
def test_a_wish_is_carried_out_in_its_step(
    tiny: config.Settings, labels: Labels, source: MaskSource, stop: bool
) -> None:
    saved: list[int] = []
    made = trainee(tiny, labels, steps=6, batch=4, checkpoint_every=100)

    def poll() -> StopRequest:
        return StopRequest(save=not stop, stop=stop) if made.step == 2 else StopRequest()

    hooks = Hooks(save=saved.append, poll=poll)
    finished = train(fitting(made, source), made.unet, DistContext(), hooks)
    assert finished is not stop
    assert saved == ([3] if stop else [3, 6])


@pytest.mark.parametrize("stop", [True, False])
def test_a_held_out_loss_that_fails_costs_no_checkpoint(
    tiny: config.Settings, labels: Labels, source: MaskSource, stop: bool
) -> None:
    def fail(_step: int, _batch: Batch) -> Batch:
        raise ValueError("held-out data")

    saved: list[int] = []
    made = trainee(tiny, labels, steps=6, batch=4, checkpoint_every=100 if stop else 2)
    hooks = Hooks(save=saved.append, poll=lambda: StopRequest(stop=stop and made.step == 1))
    with pytest.raises(ValueError, match="held-out data"):
        train(fitting(made, source, Fixed(source, fail)), made.unet, DistContext(), hooks)
    assert saved == [2]


def test_not_finite_stops_with_a_line(tiny: config.Settings, labels: Labels, source: MaskSource) -> None:
    made = trainee(tiny, labels, steps=4, batch=4)
    next(made.unet.parameters()).data.fill_(float("nan"))
    with pytest.raises(UserError, match=r"not finite in step 1; the last checkpoint is kept"):
        losses_of(made, source)
    assert made.step == 0, "no step is taken with it"


def test_a_spike_stops_with_a_line(tiny: config.Settings, labels: Labels, source: MaskSource) -> None:
    begin = SPIKE_OF + SPIKE_OVER + 5

    def change(step: int, batch: Batch) -> Batch:
        return batch if step < begin else Batch(batch.clean, batch.condition, batch.timestep, 9 * batch.noise)

    made = trainee(tiny, labels, steps=200, batch=4, lr=1e-5)
    with pytest.raises(UserError, match=r"the loss rose from .* \(training\.spike 10\)"):
        train(fitting(made, Fixed(source, change), source), made.unet, DistContext(), Hooks(), spike=10.0)
    assert begin < made.step < begin + SPIKE_OF
    single = trainee(tiny, labels, steps=160, batch=4, lr=1e-5)
    one = Fixed(source, lambda step, batch: change(begin if step == begin else 0, batch))
    assert train(fitting(single, one, source), single.unet, DistContext(), Hooks(), spike=10.0), "one is none"


def test_entries_are_means_of_the_steps_between(
    tiny: config.Settings, labels: Labels, source: MaskSource
) -> None:
    entries: dict[int, dict[str, float]] = {}
    made = trainee(tiny, labels, steps=7, batch=4)
    hooks = Hooks(log=lambda step, figures: entries.update({step: figures}))
    train(fitting(made, source), made.unet, DistContext(), hooks, log_every=3)
    each = losses_of(trainee(tiny, labels, steps=7, batch=4), source)
    assert list(entries) == [3, 6, 7]
    assert entries[6]["loss"] == pytest.approx(sum(each[3:6]) / 3)
    assert entries[7]["loss"] == pytest.approx(each[6])
    assert all(math.isfinite(value) for figures in entries.values() for value in figures.values())
    assert 0 < entries[3]["data_wait_share"] < 1
    assert entries[3]["images_per_s"] == pytest.approx(4 * entries[3]["steps_per_s"])


def test_bf16_and_channels_last_learn_alike(
    tiny: config.Settings, labels: Labels, source: MaskSource
) -> None:
    plain = losses_of(trainee(tiny, labels, steps=5, batch=8), source)
    made = trainee(tiny, labels, steps=5, batch=8)
    made.unet.to(memory_format=torch.channels_last)
    half = losses_of(made, source, DistContext(bf16=True))
    assert half == pytest.approx(plain, rel=0.05)
    assert half != plain, "it is computed in another precision"
    assert all(parameter.dtype == torch.float32 for parameter in made.unet.parameters())


def test_more_workers_than_held_out_samples_are_no_error(
    tiny: config.Settings, labels: Labels, source: MaskSource
) -> None:
    made = trainee(tiny, labels, steps=5, batch=8)

    class Last(DistContext):
        """The one beyond the samples, without the others to add to."""

        def total(self, values: Sequence[float | torch.Tensor]) -> list[float]:
            return DistContext().total(values)

    assert held_out_loss(made, source, OBJECTIVE, Last(HELD_OUT, HELD_OUT + 1)) == 0.0


def test_training_ends_by_itself_when_its_time_is_over(
    tiny: config.Settings, labels: Labels, source: MaskSource
) -> None:
    made, saved, sampled = trainee(tiny, labels, steps=100_000, batch=4), list[int](), list[int]()
    made.max_seconds = 0.5
    hooks = Hooks(
        save=saved.append,
        sample=lambda step, unet: sampled.append(step),  # noqa: ARG005
    )
    assert train(fitting(made, source), made.unet, DistContext(), hooks), "it is a clean end"
    assert saved[-1] == sampled[-1] == made.step < 100_000
    assert made.elapsed >= 0.5
    step = made.step
    assert train(fitting(made, source), made.unet, DistContext(), hooks)
    assert made.step == step, "the same command finds it finished"


@pytest.mark.parametrize("readers", [0, 1, 3])
@pytest.mark.parametrize("start", [0, 4])
def test_steps_come_in_order_whoever_is_faster(readers: int, start: int) -> None:
    def read(step: int) -> int:
        time.sleep(0.002 * (step % 3))
        return step

    with closing(read_ahead(read, range(start, 12), readers)) as steps:
        assert list(steps) == list(range(start, 12))


def test_the_next_steps_are_read_meanwhile_and_no_more() -> None:
    begun: list[int] = []
    with closing(read_ahead(lambda step: begun.append(step) or step, range(100), 2)) as steps:  # type: ignore[func-returns-value]
        next(steps)
        deadline = time.monotonic() + 5
        while len(begun) < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert sorted(begun) == [0, 1, 2]


def test_an_error_comes_where_its_step_does_and_threads_end() -> None:
    def read(step: int) -> int:
        if step == 2:
            raise ValueError("step 2")
        return step

    with closing(read_ahead(read, range(9), 2)) as steps:
        assert [next(steps), next(steps)] == [0, 1]
        with pytest.raises(ValueError, match="step 2"):
            next(steps)
    assert not [t for t in threading.enumerate() if t.name.startswith("reader")]
