"""How Ray is started and joined."""

import os

import pytest
import torch

from diffgen import cluster
from diffgen.cluster import MALLOC_ENV, actor_runtime_env
from diffgen.errors import UserError


@pytest.mark.usefixtures("ray_cluster")
def test_an_actor_that_computes_on_a_cpu_keeps_the_memory_it_frees() -> None:
    """glibc reads its settings when a process starts: they must be there before."""
    import ray

    look = ray.remote(num_cpus=0, runtime_env=actor_runtime_env(gpu=False))(lambda: dict(os.environ))
    environment = ray.get(look.remote())
    assert MALLOC_ENV.items() <= environment.items()
    assert actor_runtime_env(gpu=True) is None


def test_on_this_machine_a_gpu_is_used_where_torch_finds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    for found in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=found: found)
        assert cluster.on_gpus(None) == found
        assert not cluster.on_gpus(False)
    assert cluster.on_gpus(True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="gpu=true, and torch finds no GPU on this machine: --cpu"):
        cluster.on_gpus(True)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, float]]]:
    """A cluster at an address; what its autoscaler is asked for."""
    asked: list[list[dict[str, float]]] = []
    monkeypatch.setenv("RAY_ADDRESS", "ray.example:6379")
    monkeypatch.setattr(cluster, "connect", lambda: None)
    monkeypatch.setattr(cluster, "scales_to", lambda _: False)
    monkeypatch.setattr("ray.autoscaler.sdk.request_resources", lambda bundles: asked.append(bundles))
    monkeypatch.setattr(cluster, "POLL_S", 0.0)
    return asked


def test_a_cluster_with_nothing_to_give_is_waited_for(
    elsewhere: list[list[dict[str, float]]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An autoscaler at zero is asked for a node, which decides where the work is done, and then no longer."""
    seen = iter([{}, {}, {}, {}, {"GPU": 1.0, "CPU": 8.0}, {"GPU": 1.0}])
    monkeypatch.setattr("ray.cluster_resources", lambda: next(seen))
    assert cluster.on_gpus(None)
    assert elsewhere == [[{"GPU": 1}, {"CPU": 1}], []]
    assert capsys.readouterr().err.count("a GPU or a CPU to give: asking and waiting for one") == 1


@pytest.mark.parametrize(
    ("wanted", "scales", "gpus"),
    [(None, False, False), (None, True, True), (True, False, True), (False, True, False)],
)
def test_gpus_that_scale_from_zero_beside_a_head_with_cpus_are_asked_for(
    elsewhere: list[list[dict[str, float]]],
    monkeypatch: pytest.MonkeyPatch,
    wanted: bool | None,
    scales: bool,
    gpus: bool,
) -> None:
    have = {"CPU": 8.0}

    def request(bundles: list[dict[str, float]]) -> None:
        elsewhere.append(bundles)
        have["GPU"] = 1.0

    monkeypatch.setattr(cluster, "scales_to", lambda _: scales)
    monkeypatch.setattr("ray.cluster_resources", lambda: have)
    monkeypatch.setattr("ray.autoscaler.sdk.request_resources", request)
    assert cluster.on_gpus(wanted) == gpus
    assert elsewhere == ([[{"GPU": 1}], []] if gpus else [])


@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_of_this_machine_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert not cluster.scales_to("GPU")
    with pytest.raises(UserError, match=r"gpu=true need 1 GPUs, this machine has 0"):
        cluster.on_gpus(True)


def test_nodes_with_other_versions_are_named() -> None:
    mine = {"diffgen": "0.1.0", "torch": "2.13.0"}
    assert cluster.unlike(mine, {"a (10.0.0.1)": mine, "b (10.0.0.2)": dict(mine)}) is None
    assert cluster.unlike(mine, {}) is None
    told = cluster.unlike(
        mine, {"b": {"diffgen": "0.1.0", "torch": "2.4.0"}, "a": {"torch": "2.13.0"}, "c": mine}
    )
    assert told == "diffgen 0.1.0 here, none on a; torch 2.13.0 here, 2.4.0 on b"


@pytest.mark.usefixtures("ray_cluster")
def test_one_node_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.wait", lambda *_, **__: pytest.fail("it is this machine"))
    cluster.check_versions(gpu=False)
