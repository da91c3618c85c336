"""The benchmark of `prepare` runs, and tells what it says it tells."""

import json
from pathlib import Path

from benchmarks import prepare


def test_figures_as_json(tmp_path: Path) -> None:
    prepare.main(["--quick", "--json", str(tmp_path / "told.json")])
    told = json.loads((tmp_path / "told.json").read_text())
    assert list(told) == [
        "prepare, MP/s",
        "bare loop, MP/s",
        "prepare by bare loop",
        "200 cells, s",
        "4 regions, s",
        "a region with 100 holes, s",
    ]
    assert all(value > 0 for value in told.values())
