"""Copies of what lies behind URLs: whole, once, and a full disk is told."""

import errno
import threading
from pathlib import Path
from typing import Any

import pytest

from diffgen import cache
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
