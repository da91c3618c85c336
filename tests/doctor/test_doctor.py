"""The doctor on this machine, its cluster, and stores that are there or not."""

import json
import os
import socket
import uuid
from datetime import datetime
from pathlib import Path

import pytest
from rich.console import Console

from diffgen import cluster
from diffgen.doctor import doctor, facts, judge
from diffgen.storage import Folder
from tests.test_cli import diffgen

QUIET = Console(quiet=True)


def test_facts_of_this_machine_can_be_judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    here = facts.collect()
    assert json.loads(json.dumps(here)) == here
    assert here["temporary"] == f"{tmp_path}/ray"
    assert here["socket"].startswith(f"{tmp_path}/ray/session_")
    assert here["host"] == socket.gethostname()
    assert here["cpus"] <= (os.cpu_count() or 0)
    assert 0 < here["memory_free"] <= here["memory"]
    assert len(judge.machine(here)) == 6
    assert facts.usage(str(tmp_path / "not" / "yet")) is not None


def test_a_path_of_a_socket_is_as_long_as_ray_makes_it() -> None:
    path = facts.socket_path("/tmp/ray", datetime(2026, 1, 2, 3, 4, 5, 6), 789)
    assert path == "/tmp/ray/session_2026-01-02_03-04-05_000006_789/sockets/plasma_store"


def test_a_probe_leaves_nothing_behind(tmp_path: Path) -> None:
    assert doctor.probed(str(tmp_path / "deep" / "out")).verdict == "ok"
    assert list(tmp_path.iterdir()) == []
    url = f"memory://{uuid.uuid4().hex}/out"
    Folder(url).write("kept", b"")
    assert doctor.probed(url).verdict == "ok"
    assert list(Folder(url).files("")) == ["kept"]


@pytest.mark.parametrize("out", ["nosuch://x", "file"])
def test_a_store_that_cannot_be_written_is_a_row(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    row = doctor.probed(out)
    assert row.verdict == "wrong"
    assert row.remedy


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster runs, and none may be started."""
    monkeypatch.setattr(cluster, "running", lambda: None)
    monkeypatch.setattr(cluster, "connect", lambda *_: pytest.fail("a cluster is started"))


@pytest.mark.usefixtures("alone")
def test_the_command_says_what_is_there_and_what_is_wrong(tiny_bundle: Path, tmp_path: Path) -> None:
    good = diffgen("doctor", "--bundle", str(tiny_bundle), "--json", cwd=tmp_path)
    rows = {row["what"]: row for row in json.loads(good.stdout)}
    assert good.returncode == (0 if all(row["verdict"] != "wrong" for row in rows.values()) else 2)
    assert rows["store"]["verdict"] == rows["bundle"]["verdict"] == rows["Ray"]["verdict"] == "ok"
    bad = diffgen("doctor", "--bundle", "nowhere", "--inline", cwd=tmp_path)
    assert bad.returncode == 2
    assert "wrong" in bad.stdout
    assert "Ray" not in bad.stdout


def test_an_address_where_nothing_answers_is_said_at_once(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{other.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    rows = doctor.examine(str(tmp_path), str(tiny_bundle), False, QUIET)
    (row,) = [row for row in rows if row.what == "Ray"]
    assert row.verdict == "wrong"
    assert row.found == f"{address}: nothing answers there"
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr(cluster, "running", lambda: address)
    assert doctor._cluster(QUIET)[0].verdict == "ok"  # one of before: commands start their own


@pytest.mark.usefixtures("ray_cluster")
def test_every_node_of_a_cluster_is_asked(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    monkeypatch.setenv("RAY_ADDRESS", address)
    (node,) = cluster.on_each_node(facts.collect, facts.clock)
    assert node["host"] == socket.gethostname()
    assert node["diffgen"] == facts.collect()["diffgen"]
    assert abs(node["ahead"]) <= node["doubt"] + 0.1
    assert Path(node["socket"]).exists()
    rows = {row.what: row for row in doctor.examine(str(tmp_path), str(tiny_bundle), False, QUIET)}
    assert rows["Ray"].found.startswith(f"{address}: 1 node, {cluster.available('CPU')} CPUs")
    assert rows["clocks"].verdict == "ok"


@pytest.mark.usefixtures("ray_cluster")
def test_a_node_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    (node,) = cluster.on_each_node(_broken, facts.clock)
    assert "no such tool here" in node["fault"]
    monkeypatch.setattr(cluster, "running", lambda: "x:1")
    monkeypatch.setattr(cluster, "answers", lambda _: True)
    monkeypatch.setattr(cluster, "on_each_node", lambda *_: [node])
    rows = doctor.examine("out", "nowhere", False, QUIET)
    (row,) = [row for row in rows if row.what == "node"]
    assert row.verdict == "wrong"


def _broken(_: float) -> dict[str, object]:
    raise RuntimeError("no such tool here")


def test_a_run_that_cannot_start_says_what_is_wrong_after_its_line(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = [judge.Row("socket path", "131 of 107 bytes", "wrong", "set RAY_TMPDIR")]
    monkeypatch.setattr(doctor, "wrong_here", lambda: wrong)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    words = ("synthesize", "--bundle", str(tiny_bundle), "--inline", "--size", "64", "--set", "gpu=true")
    first, *others = diffgen(*words, cwd=tmp_path).stderr.splitlines()
    assert first.startswith("error: gpu=true, and torch finds no GPU on this machine")
    assert others == ["  socket path: 131 of 107 bytes; set RAY_TMPDIR", "  diffgen doctor says more"]

    def fail() -> list[judge.Row]:
        raise RuntimeError("the doctor is ill")

    monkeypatch.setattr(doctor, "wrong_here", fail)
    done = diffgen(*words, cwd=tmp_path)
    assert done.stderr.splitlines() == [first]
    assert done.returncode == 2
