"""The benchmark of the copy search's time runs on what it makes itself."""

import json
from pathlib import Path

from benchmarks import copy_search


def test_parts_are_timed(tmp_path: Path) -> None:
    told_at = tmp_path / "told.json"
    copy_search.main(["--regions", "20", "--training", "40", "--side", "64", "--json", str(told_at)])
    told = json.loads(told_at.read_text())
    assert (told["regions looked for"], told["training regions"]) == (20, 40)
    assert set(told["s, CPU s"]) == {"patterns of both", "points searched in", "search"}
    assert all(wall > 0 for wall, _ in told["s, CPU s"].values())
