"""`diffgen.open`: every sample once, whatever number of shards, workers and ranks; torch, MONAI and Ray."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import list_data_collate
from monai.transforms import Compose, EnsureChannelFirstd, RandCropByLabelClassesd, ScaleIntensityd
from torch.utils.data import DataLoader

import diffgen
from diffgen.errors import UserError
from diffgen.export.reading import share
from tests.export.ranks import read_as_rank
from tests.export.shards import LABELS, pair, write

PAIRS = [pair(k) for k in range(5)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five samples in two shards."""
    return write(tmp_path_factory.mktemp("shards") / "out", PAIRS, per_shard=3)


def numbers(loader: Any) -> list[int]:
    return sorted(record["index"] for _, _, record in loader)


def test_samples_are_those_that_were_written(shards: str) -> None:
    opened = diffgen.open(shards)
    assert (len(opened), opened.labels) == (5, LABELS)
    for number, (image, ids, record) in enumerate(opened):
        assert np.array_equal(image, PAIRS[number][0])
        assert np.array_equal(ids, PAIRS[number][1])
        assert (record["index"], record["context"]) == (number, "lung" if number % 2 else None)
    assert opened[-1][2]["index"] == 4
    with pytest.raises(IndexError):
        opened[5]


@given(n=st.integers(1, 30), world=st.integers(1, 9), workers=st.integers(1, 5))
def test_nothing_is_left_out_and_all_ranks_get_equally_many(n: int, world: int, workers: int) -> None:
    parts = [
        [share(np.arange(n), rank, world, worker, workers) for worker in range(workers)]
        for rank in range(world)
    ]
    assert {len(np.concatenate(rank)) for rank in parts} == {-(-n // world)}
    got = np.concatenate([part for rank in parts for part in rank])
    assert set(got) == set(range(n))
    assert len(got) < n + world
    # As many batches on each rank, whatever their size.
    assert len({tuple(len(part) for part in rank) for rank in parts}) == 1


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_a_loader_with_fewer_shards_than_workers(shards: str, workers: int) -> None:
    data = diffgen.open(shards).torch()
    assert numbers(DataLoader(data, batch_size=None, num_workers=workers)) == [0, 1, 2, 3, 4]


def test_ranks_with_workers_together_see_all(shards: str) -> None:
    opened = diffgen.open(shards)
    seen = [
        numbers(DataLoader(opened.torch(rank=rank, world=3), batch_size=None, num_workers=2))
        for rank in range(3)
    ]
    assert [len(part) for part in seen] == [2, 2, 2]
    assert {number for part in seen for number in part} == set(range(5))


@pytest.mark.slow
def test_distributed_data_parallel_does_not_hang(shards: str, tmp_path: Path) -> None:
    torch.multiprocessing.spawn(read_as_rank, (2, shards, str(tmp_path)), nprocs=2)
    seen = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert {number for part in seen for number in part} == set(range(5))
    assert {len(part) for part in seen} == {3}


def test_shuffled_by_epoch_and_alike_on_all_ranks(shards: str) -> None:
    opened = diffgen.open(shards)

    def order(epoch: int, workers: int = 0) -> list[int]:
        data = opened.torch(shuffle=True, seed=1)
        data.set_epoch(epoch)
        return [r["index"] for *_, r in DataLoader(data, batch_size=None, num_workers=workers)]

    assert order(0) == order(0)
    assert order(0) == order(0, workers=1)
    assert len({tuple(order(epoch)) for epoch in range(5)}) > 1
    data = opened.torch(shuffle=True, seed=1)
    loader = DataLoader(data, batch_size=None, num_workers=1, persistent_workers=True)
    for epoch in range(3):
        data.set_epoch(epoch)
        assert [r["index"] for *_, r in loader] == order(epoch)


def test_monai_takes_them(shards: str) -> None:
    keys = ("image", "label")
    crops = RandCropByLabelClassesd(
        keys, "label", (16, 16), ratios=[0, 1, 1, 1], num_classes=4, num_samples=2
    )
    steps = Compose(
        [
            EnsureChannelFirstd("image", channel_dim=-1),
            EnsureChannelFirstd("label", channel_dim="no_channel"),
            ScaleIntensityd("image"),
            crops,
        ]
    )
    data = diffgen.open(shards).torch(transform=steps)
    loader = DataLoader(data, batch_size=2, num_workers=2, collate_fn=list_data_collate)
    batches = list(loader)
    assert {tuple(batch["image"].shape[1:]) for batch in batches} == {(3, 16, 16)}
    assert {tuple(batch["label"].shape[1:]) for batch in batches} == {(1, 16, 16)}
    assert all(set(np.unique(batch["label"])) <= set(range(4)) for batch in batches)
    seen = [record["index"] for batch in batches for record in batch["record"]]
    assert sorted(seen) == sorted([*range(5)] * 2)


@pytest.mark.usefixtures("ray_cluster")
def test_the_code_in_the_docs_runs(shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code
    monkeypatch.chdir(Path(shards).parent)
    names: dict[str, Any] = {}
    exec(code[1].replace("num_workers=4", "num_workers=1"), names)
    images, ids, records = next(iter(names["loader"]))
    assert (images.shape, ids.shape, len(records)) == ((5, 48, 64, 3), (5, 48, 64), 5)
    assert names["rows"].count() == 5


@pytest.mark.usefixtures("ray_cluster")
def test_ray_reads_them(shards: str) -> None:
    rows = diffgen.open(shards).ray().take_all()
    assert len(rows) == 5
    for row in rows:
        number = row["record"]["index"]
        assert np.array_equal(row["image"], PAIRS[number][0])
        assert np.array_equal(row["ids"], PAIRS[number][1])
        assert row["record"]["context"] == ("lung" if number % 2 else None)


def test_what_is_no_finished_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no shards can be read there"):
        diffgen.open(str(tmp_path / "nothing"))
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match="not finished: the same command resumes it"):
        diffgen.open(str(tmp_path))
