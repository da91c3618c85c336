from pathlib import Path

import pytest

from diffgen import places


def test_the_last_one_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert places.recall("data") is None
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        places.remember("data", Path(name))
    places.remember("bundle", Path("one"))
    assert places.recall("data") == tmp_path / "two"
    assert places.recall("bundle") == tmp_path / "one"
    (tmp_path / "two").rmdir()
    assert places.recall("data") is None


def test_a_damaged_note_is_no_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    places.MEMORY.write_text("{")
    assert places.recall("data") is None
