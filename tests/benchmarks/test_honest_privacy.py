"""The benchmark of honest pictures runs, and does not call them copies."""

import json
from pathlib import Path

from PIL import Image

from benchmarks import honest_privacy
from tests.evaluation.crimes import textures


def test_honest_pictures_are_seldom_poor(tmp_path: Path) -> None:
    for number, picture in enumerate(textures(75, 0, 32)):
        Image.fromarray(picture).save(tmp_path / f"{number:03d}.png")
    words = ["--regions", "25", "--side", "32", "--resamples", "5", "--json", str(tmp_path / "told.json")]
    honest_privacy.main([str(tmp_path), *words])
    told = json.loads((tmp_path / "told.json").read_text())
    assert sum(told["verdicts"].values()) == 5
    assert told["poor"][0] <= 0.2
