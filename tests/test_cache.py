"""Copies of what lies behind URLs: whole, once, and a full disk is told."""

import errno
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from diffgen import cache
from diffgen.doctor import doctor
from diffgen.errors import UserError
from diffgen.storage import Folder


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.PLACE, str(tmp_path / "cache"))


class Counted(Folder):
    """A folder that counts what is read of it."""

    opened = 0

    def open(self, name: str) -> Any:
        self.opened += 1
        return super().open(name)


@pytest.fixture
def folder(tmp_path: Path) -> Counted:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a.tar").write_bytes(b"a")
    return Counted(str(tmp_path / "far"))


def test_whoever_asks_it_is_fetched_once(folder: Counted) -> None:
    places: list[Path] = []
    threads = [
        threading.Thread(target=lambda: places.append(cache.copy(folder, "k", {"i": b"i"}, ["a.tar"])))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(places) == {cache.root() / "k"}
    assert {p.name: p.read_bytes() for p in places[0].iterdir()} == {"i": b"i", "a.tar": b"a"}
    assert folder.opened == 1


def test_what_breaks_off_is_no_copy(folder: Counted) -> None:
    with pytest.raises(FileNotFoundError):
        cache.copy(folder, "k", {}, ["a.tar", "b.tar"])
    assert not [path for path in cache.root().iterdir() if path.is_dir()]
    (Path(folder.url) / "b.tar").write_bytes(b"b")
    assert (cache.copy(folder, "k", {}, ["a.tar", "b.tar"]) / "b.tar").read_bytes() == b"b"


def test_a_full_disk_is_a_line_that_names_host_and_remedy(
    folder: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(folder), "open", full)
    with pytest.raises(UserError, match=r"no space left .*DIFFGEN_CACHE"):
        cache.copy(folder, "k", {}, ["a.tar"])


USE = """
import sys
from diffgen import cache
cache.copy(None, sys.argv[1], {}, [])
print("up", flush=True)
input()
"""


def fetched(folder: Counted, key: str, used: float) -> Path:
    """A copy of 1,000 bytes that was used at that time, by a process that is over."""
    place = cache.copy(folder, key, {"i": bytes(1000)}, [])
    os.close(cache._in_use.pop(place))
    os.utime(place, (used, used))
    return place


def names() -> set[str]:
    return {path.name for path in cache.root().iterdir()}


def test_least_recently_used_copies_go(folder: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    for used, key in enumerate("abcd"):
        fetched(folder, key, used)
    os.close(cache._in_use.pop(cache.copy(folder, "a", {}, [])))  # used again: the last of them
    monkeypatch.setenv(cache.SIZE, "3e-6")
    cache.copy(folder, "e", {"i": bytes(1000)}, [])
    assert names() == {"a", "d", "e"}


def test_a_full_disk_is_made_room_on(folder: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    place = fetched(folder, "a", 1.0)
    usage = shutil.disk_usage(place)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=int(0.2 * usage.total)))
    cache.tidy()
    assert names() == {"a"}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=int(0.05 * usage.total)))
    cache.tidy()
    assert names() == set()


def test_what_a_process_uses_stays(folder: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.SIZE, "0")
    fetched(folder, "a", 1.0)
    with subprocess.Popen(
        [sys.executable, "-c", USE, "a"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "up\n"
        cache.tidy()
        assert names() == {"a"}
        user.communicate("over\n")
    assert user.returncode == 0
    cache.tidy()
    assert names() == set()


def test_a_size_that_is_none_is_a_line(folder: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.SIZE, "much")
    with pytest.raises(UserError, match="DIFFGEN_CACHE_GB=much: expected a number of gigabytes"):
        cache.copy(folder, "a", {}, [])


def test_the_doctor_says_where_it_is_and_its_size(folder: Counted) -> None:
    assert doctor._cache().found == f"{cache.root()}: 0 data sets, 0.0 GiB"
    fetched(folder, "a", 1.0)
    assert "1 data set," in doctor._cache().found
