import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from diffgen import config
from diffgen.data.stream import Patches
from diffgen.errors import UserError
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.sampling.solvers import noise_schedule
from diffgen.training.algorithm import Batch, MaskSource
from diffgen.training.loop import STATE, Hooks, Place, Trainee, train
from tests.data import prepared

SCHEDULE = noise_schedule(1000, "squaredcos_cap_v2", "epsilon")


def trainee(tiny: config.Settings, labels: Labels, **part: Any) -> Trainee:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return Trainee(bundle.new_mask_unet(tiny, labels, 3), config.Part(**part))


@pytest.fixture(scope="module")
def source(tiny: config.Settings, labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> MaskSource:
    folder = prepared.make(tmp_path_factory.mktemp("data"), tiny, labels)
    return MaskSource(Patches(folder, "mask"), len(labels), 0.5, 1000, seed=0)


def hooks(losses: list[float], folder: Path | None = None, samples: list[int] | None = None) -> Hooks:
    def save(step: int, write: Any) -> None:
        if folder is not None:
            (folder / str(step)).mkdir()
            write(folder / str(step))

    return Hooks(
        lambda step, figures: losses.append(figures["loss"]),  # noqa: ARG005
        save,
        lambda step, unet: samples.append(step) if samples is not None else None,  # noqa: ARG005
    )


class Fixed:
    """The same batch in every step."""

    def __init__(self, source: MaskSource) -> None:
        self.made = source.batch(0, range(8))

    def batch(self, step: int, samples: range) -> Batch:
        del step, samples
        return self.made


def test_loss_falls_on_a_fixed_batch(tiny: config.Settings, labels: Labels, source: MaskSource) -> None:
    losses: list[float] = []
    made = trainee(tiny, labels, steps=80, batch=8, lr=5e-3)
    train(made, made.unet, Fixed(source), SCHEDULE, Place(), hooks(losses))
    assert len(losses) == 80
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_a_resumed_run_takes_the_same_steps(
    tiny: config.Settings, labels: Labels, source: MaskSource, tmp_path: Path
) -> None:
    part = {"steps": 8, "batch": 4, "checkpoint_every": 4, "sample_every": 4}
    whole, rest, sampled = list[float](), list[float](), list[int]()
    one = trainee(tiny, labels, **part)
    train(one, one.unet, source, SCHEDULE, Place(), hooks(whole, tmp_path, sampled))
    other = trainee(tiny, labels, **part)
    other.read(tmp_path / "4")
    assert other.step == 4
    train(other, other.unet, source, SCHEDULE, Place(), hooks(rest))
    assert rest == whole[4:]
    assert sampled == [4, 8]
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

    train(made, made.unet, source, SCHEDULE, Place(), Hooks(lambda *_: None, lambda *_: None, sample))
    assert all(torch.equal(a, b) for a, b in zip(seen, made.ema.shadow_params, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(seen, made.unet.parameters(), strict=True))


def test_not_finite_stops_with_a_line(tiny: config.Settings, labels: Labels, source: MaskSource) -> None:
    made = trainee(tiny, labels, steps=4, batch=4)
    next(made.unet.parameters()).data.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite in step 1"):
        train(made, made.unet, source, SCHEDULE, Place(), hooks([]))


def test_optimiser_state_is_not_unpickled(
    tiny: config.Settings, labels: Labels, source: MaskSource, tmp_path: Path
) -> None:
    """Promise 8: a state file that would run code is refused."""
    made = trainee(tiny, labels, steps=1, batch=4)
    train(made, made.unet, source, SCHEDULE, Place(), hooks([], tmp_path))
    mark = tmp_path / "it ran"
    torch.save({"optimizer": Evil(str(mark))}, tmp_path / "1" / STATE)
    with pytest.raises(pickle.UnpicklingError):
        made.read(tmp_path / "1")
    assert not mark.exists()


class Evil:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return os.mkdir, (self.path,)


def test_workers_share_a_batch() -> None:
    shares = [Place(rank, 4).share(10) for rank in range(4)]
    assert sorted(number for share in shares for number in share) == list(range(10))
