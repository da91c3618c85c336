"""A user's mistake in a worker: told once, and no other worker is left waiting."""

from types import SimpleNamespace
from typing import Any

import pytest

from diffgen.errors import UserError
from diffgen.training import ray_worker
from diffgen.training.status_actor import StatusActor

TASK = {"part": "mask", "data": "", "run": "", "settings": {}, "latents": None, "init_from": None}


class Here:
    """An actor's handle whose calls are made at once."""

    def __init__(self, board: StatusActor) -> None:
        self.board = board

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self.board, name))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_mistake_is_told_and_ends_all_workers(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    import ray
    import ray.train

    calls = []

    def mistaken(*_: object) -> None:
        calls.append(1)
        raise UserError("the third shard is damaged")

    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(ray.train, "get_context", lambda: SimpleNamespace(get_world_size=lambda: workers))
    monkeypatch.setattr(ray_worker, "_train", mistaken)
    board = StatusActor()
    if workers == 1:
        ray_worker.work(TASK | {"board": Here(board)})
    else:
        with pytest.raises(UserError, match="damaged"):  # Ray then stops the others
            ray_worker.work(TASK | {"board": Here(board)})
    assert board.read()["failure"] == "the third shard is damaged"
    ray_worker.work(TASK | {"board": Here(board)})
    assert len(calls) == 1, "Ray's second try ends at once"
