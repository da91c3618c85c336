"""The benchmark of the copy search runs, and the search finds what it is made for."""

import json
from pathlib import Path

from benchmarks import planted_copies
from benchmarks.crimes import CRIMES


def test_planted_copies_are_found(tmp_path: Path) -> None:
    planted_copies.main(["--copies", "12", "--side", "96", "--json", str(tmp_path / "told.json")])
    told = json.loads((tmp_path / "told.json").read_text())
    assert list(told["found"]) == list(CRIMES)
    assert told["false alarms"][0] == 0
    assert told["found"]["shift both ways, % of the side"]["9"] > 0.9
    assert (
        told["found"]["part enlarged to full size, % of the area"]["25"] > 0.4
    )  # smooth: few points in a part
    assert told["found"]["shifted, enlarged 1.25, JPEG of quality"]["70"] > 0.9


def test_false_alarms_of_each_half_in_the_other(tmp_path: Path) -> None:
    words = ["--copies", "0", "--side", "96", "--training", "0", "--step", "0.5"]
    planted_copies.main([*words, "--json", str(tmp_path / "told.json")])
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["real against real"] == 40 * 3 * 3
    assert told["of pictures"] == 40
    assert told["found"] == {}
