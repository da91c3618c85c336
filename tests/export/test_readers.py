"""Our shards in other hands, and what we export in those it is meant for: the real libraries."""

import io
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import webdataset
from PIL import Image
from rich.console import Console
from torch.utils.data import DataLoader

from diffgen.export.export import export
from tests.export.shards import LABELS, MPP, pair, write

QUIET = Console(quiet=True)
PAIRS = [pair(k) for k in range(5)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("shards") / "out", PAIRS, per_shard=3)


def pixels(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_webdataset_with_more_workers_than_shards(shards: str) -> None:
    tars = sorted(map(str, Path(shards).glob("shard-*.tar")))
    data = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False)
    seen = {}
    for sample in DataLoader(data, batch_size=None, num_workers=3):
        assert np.array_equal(pixels(sample["mask.png"]), PAIRS[int(sample["__key__"])][1])
        seen[sample["__key__"]] = json.loads(sample["json"])["index"]
    assert seen == {f"{k:09d}": k for k in range(5)}


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_reads_the_shards(shards: str, tmp_path: Path, streaming: bool) -> None:
    files = {"train": sorted(map(str, Path(shards).glob("shard-*.tar")))}
    data = datasets.load_dataset(
        "webdataset", data_files=files, split="train", streaming=streaming, cache_dir=str(tmp_path)
    )
    rows = list(data)
    assert len(rows) == 5
    for row in rows:
        number = row["json"]["index"]
        assert np.array_equal(np.asarray(row["png"]), PAIRS[number][0])
        assert np.array_equal(np.asarray(row["mask.png"]), PAIRS[number][1])


@pytest.mark.usefixtures("ray_cluster")
def test_ray_reads_the_shards(shards: str) -> None:
    import ray.data

    files = sorted(map(str, Path(shards).glob("shard-*.tar")))
    rows = ray.data.read_webdataset(files).take_all()
    assert sorted(row["__key__"] for row in rows) == [f"{k:09d}" for k in range(5)]
    for row in rows:
        assert np.array_equal(row["png"], PAIRS[int(row["__key__"])][0])
        assert np.array_equal(row["mask.png"], PAIRS[int(row["__key__"])][1])


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_dataset(shards: str, tmp_path: Path, streaming: bool) -> None:
    out = export(shards, "hf", str(tmp_path / "set"), None, QUIET)
    data = datasets.load_dataset(out, split="train", streaming=streaming, cache_dir=str(tmp_path / "cache"))
    assert data.features["classes"].feature.names == list(LABELS.classes)
    rows = list(data)
    assert len(rows) == 5
    for number, row in enumerate(rows):
        image, ids = PAIRS[number]
        assert np.array_equal(np.asarray(row["image"]), image)
        assert np.array_equal(np.asarray(row["label_map"]), ids)
        assert row["classes"] == np.unique(ids).tolist()
        assert row["class_shares"] == pytest.approx(LABELS.shares(ids))
        assert (row["mpp"], row["seed"], row["index"], row["parent"]) == (MPP, 7, number, None)
        assert json.loads(row["record"])["run"]["bundle"] == "abc"


def test_schema_and_card_agree(shards: str, tmp_path: Path) -> None:
    out = Path(export(shards, "hf", str(tmp_path / "set"), None, QUIET))
    card = datasets.load_dataset_builder(str(out), cache_dir=str(tmp_path / "cache")).info.features
    file = datasets.Dataset.from_parquet(
        str(out / "data" / "train-000000.parquet"), cache_dir=str(tmp_path / "cache")
    ).features
    assert card == file
