"""How Ray is started and joined."""

import os

import pytest
import torch

from diffgen.cluster import MALLOC_ENV, actor_runtime_env, need_gpu_here
from diffgen.errors import UserError


@pytest.mark.usefixtures("ray_cluster")
def test_an_actor_that_computes_on_a_cpu_keeps_the_memory_it_frees() -> None:
    """glibc reads its settings when a process starts: they must be there before."""
    import ray

    look = ray.remote(num_cpus=0, runtime_env=actor_runtime_env(gpu=False))(lambda: dict(os.environ))
    environment = ray.get(look.remote())
    assert MALLOC_ENV.items() <= environment.items()
    assert actor_runtime_env(gpu=True) is None


def test_a_gpu_that_is_not_here_is_asked_for_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    need_gpu_here(False)
    with pytest.raises(UserError, match=r"training\.gpu=true, and torch finds no GPU"):
        need_gpu_here(True)
    monkeypatch.setenv("RAY_ADDRESS", "ray.example:6379")
    need_gpu_here(True)
