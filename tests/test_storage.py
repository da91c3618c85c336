"""Files in a folder: whole or not there, on any filesystem, nothing left behind."""

import pickle
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from diffgen.errors import UserError
from diffgen.storage import Folder, atomic, move, write_text


@pytest.fixture(params=["local", "file", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    urls = {
        "local": str(tmp_path / "out"),
        "file": (tmp_path / "o ut").as_uri(),
        "memory": f"memory://{uuid.uuid4().hex}/out",
    }
    return Folder(urls[request.param])


def test_files_come_and_go(folder: Folder) -> None:
    assert folder.entries() == []
    assert folder.files("manifest", ".parquet") == {}
    folder.write("a.tar", b"12345")
    folder.write("a.tar", b"123")
    folder.write("manifest/b.parquet", b"b")
    folder.write("manifest/a.parquet", b"")
    assert folder.read("a.tar") == b"123"
    assert folder.entries() == ["a.tar", "manifest"]
    assert list(folder.files("manifest", ".parquet").items()) == [("a.parquet", 0), ("b.parquet", 1)]
    assert folder.files("", "") == {"a.tar": 3}
    if not folder.url.startswith("memory://"):  # which does not say
        (written,) = folder.times("", ".tar").values()
        assert written == pytest.approx(time.time(), abs=60)
    folder.delete("a.tar")
    folder.delete("a.tar")
    assert not folder.exists("a.tar")
    with pytest.raises(FileNotFoundError):
        folder.read("a.tar")


def test_upload_moves(folder: Folder) -> None:
    with folder.scratch() as scratch:
        (scratch / "big").write_bytes(b"x" * 100_000)
        folder.upload(scratch / "big", "deep/big")
        assert not (scratch / "big").exists()
    assert folder.read("deep/big") == b"x" * 100_000
    assert folder.entries() == ["deep"]


def test_holds_exactly_these_bytes(folder: Folder) -> None:
    sha256 = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"  # of "foo"
    assert not folder.holds("a", 3, sha256)
    folder.write("a", b"foo")
    assert folder.holds("a", 3, sha256)
    folder.write("a", b"fop")
    assert not folder.holds("a", 3, sha256)


def test_is_picklable_when_open(folder: Folder) -> None:
    folder.write("a", b"1")
    assert pickle.loads(pickle.dumps(folder)).read("a") == b"1"


def test_relative_path_is_of_its_maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Folder("out")
    monkeypatch.chdir("/")
    folder.write("a", b"1")
    assert (tmp_path / "out" / "a").read_bytes() == b"1"


def test_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(str(tmp_path))
    folder.write("a", b"old")

    def killed(_self: Path, _target: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            folder.write("a", b"new")
    assert folder.read("a") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_clean_after_a_real_kill(tmp_path: Path) -> None:
    program = (
        "import os, sys; from diffgen.storage import Folder, atomic, move, write_text\n"
        "with Folder(sys.argv[1]).scratch() as s: (s / 'half').write_bytes(b'1'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 9
    (tmp_path / "kept").write_bytes(b"1")
    (tmp_path / ".tmp" / "stale").write_bytes(b"1")
    outside = tmp_path / "folder"
    outside.mkdir()
    (outside / "also kept").write_bytes(b"1")
    (tmp_path / ".tmp" / "link").symlink_to(outside)
    assert len(list((tmp_path / ".tmp").rglob("half"))) == 1
    Folder(str(tmp_path)).clean()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["also kept", "folder", "kept"]


def test_mode_is_the_users(tmp_path: Path) -> None:
    """A temporary file is private; what comes of it must not be."""
    (tmp_path / "plain").write_bytes(b"")
    Folder(str(tmp_path)).write("a", b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("url", ["nosuch://x/y", "s3://bucket/x?nonsense=1", "file://relative"])
def test_unknown_url_is_one_line(url: str) -> None:
    with pytest.raises(UserError, match=r"^[^\n]*cannot be opened[^\n]*$") as caught:
        Folder(url).entries()
    assert url in str(caught.value)


def test_a_file_comes_whole_and_over_the_old_one(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    with atomic(tmp_path / "a") as file:
        file.write(b"new")
        assert (tmp_path / "a").read_text() == "old"
    assert (tmp_path / "a").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_write_that_breaks_off_leaves_the_old_file_alone(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")

    def broken_off() -> None:
        with atomic(tmp_path / "a") as file:
            file.write(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_move_makes_the_folder_and_the_mode_is_the_users(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"1")
    write_text(tmp_path / "built", "1")
    move(tmp_path / "built", tmp_path / "deep" / "folder" / "a")
    assert not (tmp_path / "built").exists()
    assert (tmp_path / "deep/folder/a").stat().st_mode == (tmp_path / "plain").stat().st_mode
