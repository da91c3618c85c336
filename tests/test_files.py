"""Files stand whole or not at all; tars of the same content have the same bytes."""

import io
import tarfile
from pathlib import Path

import pytest

from diffgen.errors import one_line
from diffgen.files import atomic, move, tar_writer, write_text


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


def test_tars_repeat() -> None:
    tars = []
    for _ in range(2):
        sink = io.BytesIO()
        with tar_writer(sink) as tar:
            tar.write({"__key__": "0", "png": b"p" * 700, "json": b"{}"})
        tars.append(sink.getvalue())
    assert tars[0] == tars[1]
    with tarfile.open(fileobj=io.BytesIO(tars[0])) as tar:
        facts = [(m.name, m.mtime, m.mode, m.uname, m.gname, m.uid, m.gid) for m in tar]
    assert facts == [(f"0.{end}", 0, 0o644, "diffgen", "diffgen", 0, 0) for end in ("json", "png")]


def test_an_error_is_told_in_one_line() -> None:
    assert one_line(ValueError("a\n  b ")) == "a b"
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"
