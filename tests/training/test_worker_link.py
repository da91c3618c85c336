"""A user's mistake in a worker: told once, and no other worker is left waiting."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from diffgen import config
from diffgen.errors import UserError
from diffgen.training.status_actor import StatusActor
from diffgen.training.worker_link import RayLink


class Here:
    """An actor's handle whose calls are made at once."""

    def __init__(self, status: StatusActor) -> None:
        self.status = status

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self.status, name))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_mistake_is_told_and_ends_all_workers(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    import ray
    import ray.train
    import ray.train.torch

    place = SimpleNamespace(get_world_size=lambda: workers, get_world_rank=lambda: 0)
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(ray.train, "get_context", lambda: place)
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: None)
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
    status = StatusActor()

    def work() -> None:
        with RayLink(Here(status), config.Training()) as link:
            if not link.over:
                calls.append(1)
                raise UserError("the third shard is damaged")

    calls = list[int]()
    if workers == 1:
        work()
    else:
        with pytest.raises(UserError, match="damaged"):  # Ray then stops the others
            work()
    assert status.read()["failure"] == "the third shard is damaged"
    work()
    assert len(calls) == 1, "Ray's second try ends at once"
