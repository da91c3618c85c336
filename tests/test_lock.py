"""Two commands in one folder: the second says who is there; a dead one keeps nobody out."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest
from filelock import FileLock

from diffgen import lock
from diffgen.errors import UserError
from diffgen.lock import HOLDER, LOCK, held, holder
from diffgen.storage import Folder
from tests.synthesis.helpers import run


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("RENEW_S", 0.05), ("EXPIRE_S", 1.0), ("SETTLE_S", 0.0)):
        monkeypatch.setattr(lock, name, seconds)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "out") if request.param == "local" else f"memory://{uuid.uuid4().hex}/out")


def test_the_second_says_who_holds_the_folder(store: Folder) -> None:
    with held(store, "--out"):
        me = rf"process {os.getpid()} on {socket.gethostname()} \(since 2\d\d\d-.* UTC\) is writing there"
        with pytest.raises(UserError, match=f"^{store.url}: {me}; wait for its end or choose another --out$"):
            held(Folder(store.url), "--out").__enter__()
        assert store.entries() == []
    with held(store, "--out"):
        pass
    assert not store.exists(HOLDER)
    assert not store.exists(LOCK)


def test_an_error_lets_go(store: Folder) -> None:
    with pytest.raises(ZeroDivisionError), held(store, "--out"):
        raise ZeroDivisionError
    with held(store, "--out"):
        pass


def test_a_killed_process_lets_go_of_a_local_folder(tmp_path: Path) -> None:
    program = (
        "import os, sys; from diffgen.lock import held; from diffgen.storage import Folder\n"
        "with held(Folder(sys.argv[1]), '--out'): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 9
    assert (tmp_path / LOCK).exists()
    assert (tmp_path / HOLDER).exists()
    with held(Folder(str(tmp_path)), "--out"):
        assert json.loads((tmp_path / HOLDER).read_text())["pid"] == os.getpid()
    assert not (tmp_path / HOLDER).exists()


def test_a_lease_that_nobody_renews_expires(capsys: pytest.CaptureFixture[str]) -> None:
    store = Folder(f"memory://{uuid.uuid4().hex}/out")
    store.write(HOLDER, json.dumps({"host": "gone", "pid": 7, "since": "2026-01-01T00:00:00"}).encode())
    began = time.monotonic()
    with held(store, "--out"):
        assert time.monotonic() - began >= 1.0
        assert json.loads(store.read(HOLDER))["pid"] == os.getpid()
    assert "process 7 on gone (since 2026-01-01 00:00:00 UTC)" in capsys.readouterr().err


def test_of_two_leases_written_at_once_the_last_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    store, renew = Folder(f"memory://{uuid.uuid4().hex}/out"), lock._renew

    def overtaken(store: Folder, mine: dict[str, str]) -> None:
        renew(store, mine)
        renew(store, mine | {"token": "of another", "pid": "8"})

    monkeypatch.setattr(lock, "_renew", overtaken)
    with pytest.raises(UserError, match="process 8 on"):
        held(store, "--out").__enter__()
    assert store.exists(HOLDER)


def test_a_run_into_a_folder_that_is_held_touches_nothing(tiny_bundle: Path, tmp_path: Path) -> None:
    run(tiny_bundle, tmp_path, n=1)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    with held(Folder(str(tmp_path)), "--out"), pytest.raises(UserError, match="is writing there"):
        run(tiny_bundle, tmp_path, n=2)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


OTHER = """
import sys, time
from diffgen.lock import held
from diffgen.storage import Folder

with held(Folder(sys.argv[1]), "--run"):
    print("has it", flush=True)
    time.sleep(600)
"""


def test_who_is_patient_waits_for_the_other_to_end(tmp_path: Path) -> None:
    folder, said = Folder(str(tmp_path / "run")), list[str]()
    line = [sys.executable, "-c", OTHER, folder.url]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "has it\n"
        there = rf"process {other.pid} on {socket.gethostname()} \(since .* UTC\)"
        taken = rf"^{folder}: {there} is writing there; .* choose another --run$"
        with pytest.raises(UserError, match=taken):
            held(folder, "--run", 0.1, said.append).__enter__()
        assert len(said) == 1
        assert re.fullmatch(rf"{folder}: waiting for {there} to end", said[0])
        other.kill()
        with held(folder, "--run", 60, said.append):
            pass


def test_a_patient_one_outlives_a_lease_that_is_renewed_for_a_while() -> None:
    folder = Folder(f"memory://{uuid.uuid4().hex}/run")
    with held(folder, "--run"):
        thread = threading.Timer(0.3, folder.delete, [HOLDER])
        thread.start()
        with pytest.raises(UserError, match="is writing there"):
            held(Folder(folder.url), "--run").__enter__()
        began = time.monotonic()
        with held(Folder(folder.url), "--run", 60, lambda _: None):
            assert time.monotonic() - began < 30


def test_another_folder_is_no_matter(tmp_path: Path) -> None:
    with held(Folder(str(tmp_path / "a")), "--run"), held(Folder(str(tmp_path / "b")), "--run"):
        pass


def test_it_is_let_go_by_leaving_not_by_what_python_collects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = FileLock(tmp_path / LOCK)
    monkeypatch.setattr(lock, "FileLock", lambda _: alive)
    with held(Folder(str(tmp_path)), "--run"):
        assert alive.is_locked
    assert not alive.is_locked


def test_who_holds_a_folder_is_told_and_nothing_is_written(store: Folder) -> None:
    assert holder(store) is None
    with held(store, "--out"):
        found = holder(store)
        assert found is not None
        assert found.at_work
        assert f"process {os.getpid()} on {socket.gethostname()}" in found.named
        assert found.since == pytest.approx(time.time(), abs=60)
    assert holder(store) is None
    assert not store.exists(LOCK)


def test_who_died_in_a_folder_is_told(store: Folder) -> None:
    long_ago = {
        "host": "h",
        "pid": 7,
        "since": "2026-01-01T00:00:00+00:00",
        "renewed": "2026-01-01T00:00:00+00:00",
    }
    store.write(HOLDER, json.dumps(long_ago).encode())
    found = holder(store)
    assert found is not None
    assert found.named == "process 7 on h (since 2026-01-01 00:00:00 UTC)"
    assert found.at_work is False


def test_a_lease_by_a_clock_that_is_off_is_seen_to_be_renewed() -> None:
    store = Folder(f"memory://{uuid.uuid4().hex}/out")
    mine = {"host": "h", "pid": 7, "renewed": "2026-01-01T00:00:00+00:00"}
    store.write(HOLDER, json.dumps(mine).encode())
    ended = threading.Event()

    def renew() -> None:
        for k in range(1, 1000):
            if ended.wait(0.02):
                return
            store.write(
                HOLDER,
                json.dumps(mine | {"renewed": f"2026-01-01T00:{k // 60:02d}:{k % 60:02d}+00:00"}).encode(),
            )

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        found = holder(store)
        assert found is not None
        assert found.at_work
    finally:
        ended.set()
        thread.join()
