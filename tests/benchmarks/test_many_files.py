"""Both commands begin, and the table says when."""

import json
from pathlib import Path

import pytest

from benchmarks import many_files


def test_a_row_for_each_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many_files.main(["--quick", "--json", str(tmp_path / "told.json")])
    told = json.loads((tmp_path / "told.json").read_text())
    assert list(told) == ["prepare", "synthesize"]
    assert all(0 < seconds["wall"] < 30 for row in told.values() for seconds in row.values())
    assert all(list(row) == ["20", "40"] for row in told.values())
    assert "40 files" in capsys.readouterr().out


def test_prepare_is_stopped_before_it_works(tmp_path: Path) -> None:
    maps = many_files.write_pictures(tmp_path / "maps", 3)
    assert len(list(maps.iterdir())) == 3
    assert many_files.before_prepare(maps, tmp_path)["wall"] > 0
    assert not (tmp_path / "prepared").exists()
