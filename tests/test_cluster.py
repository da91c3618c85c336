"""How Ray is started and joined."""

import os

import pytest

from diffgen.cluster import KEEP_FREED, computing


@pytest.mark.usefixtures("ray_cluster")
def test_an_actor_that_computes_on_a_cpu_keeps_the_memory_it_frees() -> None:
    """glibc reads its settings when a process starts: they must be there before."""
    import ray

    look = ray.remote(num_cpus=0, runtime_env=computing(gpu=False))(lambda: dict(os.environ))
    environment = ray.get(look.remote())
    assert KEEP_FREED.items() <= environment.items()
    assert computing(gpu=True) is None
