"""Prepared data and reports behind URLs."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from diffgen import cache, config
from diffgen.evaluation import evaluate
from diffgen.evaluation.images import open_images, splits
from diffgen.labels import Labels
from diffgen.storage import Folder
from tests.data import prepared


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.PLACE, str(tmp_path / "cache"))


def test_prepared_data_by_its_url_is_that_of_the_folder(
    tmp_path: Path, tiny: config.Settings, labels: Labels
) -> None:
    folder = prepared.make(tmp_path / "data", tiny, labels)
    here, there = open_images(str(folder), "test"), open_images(f"file://{folder}", "test")
    assert splits(f"file://{folder}")
    region = here.regions(32)[0]
    assert here.regions(32) == there.regions(32)
    assert here.digest == there.digest
    travelled = pickle.loads(pickle.dumps(there))  # to a node that fetches a copy of its own
    assert travelled.where == f"file://{folder}"
    assert np.array_equal(here.read(region)[0], travelled.read(region)[0])


def test_a_report_goes_to_its_url(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/far/report"
    with evaluate.report_folder(url, False, Console(quiet=True)) as (folder, inline):
        assert inline, "no other node sees that folder"
        for name in evaluate.WRITTEN:
            (folder / name).write_text(name)
    assert Folder(url).entries() == ["metrics.json", "report.html"]
    assert Folder(url).read_text("report.html") == "report.html"
