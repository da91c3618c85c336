"""Two runs into one folder: the second says who is there; a dead one keeps nobody out."""

import json
import os
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from diffgen.errors import UserError
from diffgen.synthesis import lock
from diffgen.synthesis.lock import held
from diffgen.synthesis.store import HOLDER, LOCK, Store
from tests.synthesis.helpers import run


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("RENEW_S", 0.05), ("EXPIRE_S", 1.0), ("SETTLE_S", 0.0)):
        monkeypatch.setattr(lock, name, seconds)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out") if request.param == "local" else f"memory://{uuid.uuid4().hex}/out")


def test_the_second_says_who_holds_the_folder(store: Store) -> None:
    with held(store):
        me = rf"process {os.getpid()} on {socket.gethostname()} \(since 2\d\d\d-.* UTC\) is writing there"
        with pytest.raises(UserError, match=f"^{store.url}: {me}; wait for its end or choose another --out$"):
            held(Store(store.url)).__enter__()
        assert store.entries() == []
    with held(store):
        pass
    assert not store.exists(HOLDER)
    assert not store.exists(LOCK)


def test_an_error_lets_go(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), held(store):
        raise ZeroDivisionError
    with held(store):
        pass


def test_a_killed_process_lets_go_of_a_local_folder(tmp_path: Path) -> None:
    program = (
        "import os, sys; from diffgen.synthesis.lock import held; from diffgen.synthesis.store import Store\n"
        "with held(Store(sys.argv[1])): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 9
    assert (tmp_path / LOCK).exists()
    assert (tmp_path / HOLDER).exists()
    with held(Store(str(tmp_path))):
        assert json.loads((tmp_path / HOLDER).read_text())["pid"] == os.getpid()
    assert not (tmp_path / HOLDER).exists()


def test_a_lease_that_nobody_renews_expires(capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(f"memory://{uuid.uuid4().hex}/out")
    store.write(HOLDER, json.dumps({"host": "gone", "pid": 7, "since": "2026-01-01T00:00:00"}).encode())
    began = time.monotonic()
    with held(store):
        assert time.monotonic() - began >= 1.0
        assert json.loads(store.read(HOLDER))["pid"] == os.getpid()
    assert "process 7 on gone (since 2026-01-01 00:00:00 UTC)" in capsys.readouterr().err


def test_of_two_leases_written_at_once_the_last_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    store, renew = Store(f"memory://{uuid.uuid4().hex}/out"), lock._renew

    def overtaken(store: Store, mine: dict[str, str]) -> None:
        renew(store, mine)
        renew(store, mine | {"token": "of another", "pid": "8"})

    monkeypatch.setattr(lock, "_renew", overtaken)
    with pytest.raises(UserError, match="process 8 on"):
        held(store).__enter__()
    assert store.exists(HOLDER)


def test_a_run_into_a_folder_that_is_held_touches_nothing(tiny_bundle: Path, tmp_path: Path) -> None:
    run(tiny_bundle, tmp_path, n=1)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    with held(Store(str(tmp_path))), pytest.raises(UserError, match="is writing there"):
        run(tiny_bundle, tmp_path, n=2)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
