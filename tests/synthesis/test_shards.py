"""The shard writer: what lies in the folder of a run, and what it refuses."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffgen.errors import UserError
from diffgen.storage import Folder
from diffgen.synthesis.manifest import Sample
from diffgen.synthesis.shards import ShardWriter, num_shards, shard_indices, shard_of
from tests.synthesis.shard_runs import LABELS, PER_SHARD, RUN, Maker, make, make_mask, manifest, png, tars


@given(n=st.integers(0, 200), per_shard=st.integers(1, 50))
def test_shards_are_a_partition(n: int, per_shard: int) -> None:
    shards = [shard_indices(k, n, per_shard) for k in range(num_shards(n, per_shard))]
    assert [i for shard in shards for i in shard] == list(range(n))
    assert all(shard_of(i, per_shard) == k for k, shard in enumerate(shards) for i in shard)
    assert all(1 <= len(shard) <= per_shard for shard in shards)
    assert len(shard_indices(len(shards), n, per_shard)) == 0


def test_folder_of_a_run(url: str, undisturbed: Callable[[int], str]) -> None:
    Maker()(url, 10)
    store = Folder(url)
    assert store.entries() == [
        "README.md",
        "labels.json",
        "manifest",
        "manifest.parquet",
        "preview.png",
        "run.json",
        "shard-000000.tar",
        "shard-000001.tar",
        "shard-000002.tar",
    ]
    for name in store.files("", ""):
        assert store.read(name) == Folder(undisturbed(10)).read(name), name
    rows = pq.read_table(io.BytesIO(store.read("manifest.parquet"))).to_pylist()
    assert [row["index"] for row in rows] == list(range(10))
    assert rows[9]["shard"] == "shard-000002"
    assert rows[9]["key"] == "000000009"
    assert rows[9]["seconds"] == 9.0
    assert (rows[9]["height"], rows[9]["width"]) == (16, 24)
    assert rows[9]["class_shares"] == pytest.approx(LABELS.shares(make_mask(9)))
    for row in rows:
        assert store.holds(f"{row['shard']}.tar", row["shard_bytes"], row["shard_sha256"])


def test_prefix(undisturbed: Callable[[int], str]) -> None:
    few, many = tars(undisturbed(8)), tars(undisturbed(10))
    assert len(few) == 2
    assert few.items() <= many.items()


def test_plain_tar(undisturbed: Callable[[int], str]) -> None:
    with tarfile.open(Path(undisturbed(10)) / "shard-000002.tar") as tar:
        members = tar.getmembers()
    extensions = ("png", "mask.png", "json")
    assert [m.name for m in members] == [f"00000000{i}.{e}" for i in (8, 9) for e in extensions]
    assert {(m.mtime, m.uname, m.gname, m.uid, m.gid, m.mode) for m in members} == {
        (0, "diffgen", "diffgen", 0, 0, 0o644)
    }


def test_webdataset_reads_masks_losslessly(undisturbed: Callable[[int], str]) -> None:
    urls = f"{undisturbed(10)}/shard-{{000000..000002}}.tar"
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"{i:09d}" for i in range(10)]
    for i, sample in enumerate(samples):
        mask = Image.open(io.BytesIO(sample["mask.png"]))
        assert mask.mode == "L"
        np.testing.assert_array_equal(np.asarray(mask), make_mask(i))
        assert sample["json"] == list(make(i).members)[2][1]


def test_rerun_touches_nothing(tmp_path: Path) -> None:
    maker = Maker()
    maker(str(tmp_path), 10)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in tmp_path.glob("shard-*.tar")}
    maker(str(tmp_path), 10)
    assert before == {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in tmp_path.glob("shard-*.tar")}
    assert maker.made == list(range(10))


def test_growth_makes_only_what_is_new(url: str, undisturbed: Callable[[int], str]) -> None:
    maker = Maker()
    for n in (3, 6, 10):
        maker(url, n)
    assert maker.made == list(range(10))
    assert tars(url) == tars(undisturbed(10))
    # A committed sample keeps what was known about it.
    seconds = pq.read_table(io.BytesIO(Folder(url).read("manifest.parquet")))["seconds"].to_pylist()
    assert seconds == [float(i) for i in range(10)]


def test_complete_adds_what_is_there(url: str, undisturbed: Callable[[int], str]) -> None:
    Maker()(url, 9)
    writer = ShardWriter(url, RUN, PER_SHARD)
    assert writer.begin(10) == {0, 1}
    sha256 = writer.complete(2, 10, [make(9)])
    assert writer.complete(2, 10, [make(9)]) == sha256
    assert tars(url) == tars(undisturbed(10))


def test_smaller_n_loses_nothing(url: str, undisturbed: Callable[[int], str]) -> None:
    maker = Maker()
    maker(url, 10)
    writer = maker(url, 5)
    assert maker.made == list(range(10))
    assert writer.committed(5) == {0, 1}
    assert tars(url) == tars(undisturbed(10))
    assert manifest(url) == manifest(undisturbed(10))


def test_write_may_be_repeated_by_a_new_writer(url: str) -> None:
    """A restarted actor: its `__init__` ran again, `begin` did not."""
    first = ShardWriter(url, RUN, PER_SHARD)
    first.begin(4)
    samples = [make(i) for i in range(4)]
    sha256 = first.write(0, samples)
    assert first.write(0, samples) == sha256
    second = ShardWriter(url, RUN, PER_SHARD)
    assert second.write(0, samples) == sha256
    assert second.committed(4) == {0}


def test_write_refuses(tmp_path: Path) -> None:
    writer = ShardWriter(str(tmp_path), RUN, PER_SHARD)
    writer.begin(8)
    good = make(1)
    palette = Image.fromarray(make_mask(1), "L").convert("P")
    sink = io.BytesIO()
    palette.save(sink, "PNG")
    for bad, message in [
        (make(4), "does not belong to shard-000000"),
        (make(1, {"seed": 8}), "of another run"),
        (Sample(1, good.image, sink.getvalue(), good.record), "not 8-bit grey"),
        (Sample(1, good.image, png(make_mask(1)[:8]), good.record), "of the image's size"),
        (Sample(1, b"not a PNG", good.mask, good.record), "damaged PNG"),
    ]:
        with pytest.raises(ValueError, match=message):
            writer.write(0, [make(0), bad])
    assert tars(str(tmp_path)) == {}
    writer.write(0, [make(0), make(1)])
    with pytest.raises(AssertionError, match="would be lost"):
        writer.write(0, [make(1), make(2)])


def test_finish_needs_all_shards(tmp_path: Path) -> None:
    writer = ShardWriter(str(tmp_path), RUN, PER_SHARD)
    writer.begin(8)
    writer.write(0, [make(i) for i in range(4)])
    with pytest.raises(UserError, match=r"shards \[1\] are not complete"):
        writer.finish(8, LABELS)
    assert (tmp_path / "manifest.parquet").exists(), "what is there is described all the same"


@pytest.mark.parametrize("unlisted", ["000001", "000001.tar"], ids=["shard and part", "shard alone"])
def test_a_store_may_list_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unlisted: str) -> None:
    """A writer's successor finishes a folder of which no list has all of the last shard yet."""
    n = 2 * PER_SHARD
    first = ShardWriter(str(tmp_path), RUN, PER_SHARD)
    first.begin(n)
    for k in range(2):
        first.write(k, [make(index) for index in shard_indices(k, n, PER_SHARD)])
    listed = Folder.files

    def late(self: Folder, folder: str, suffix: str = "") -> dict[str, int]:
        return {name: size for name, size in listed(self, folder, suffix).items() if unlisted not in name}

    monkeypatch.setattr(Folder, "files", late)
    second = ShardWriter(str(tmp_path), RUN, PER_SHARD)
    second.begin(n)
    assert list((tmp_path / "manifest").glob("*000001.parquet")), "kept"
    second.finish(n, LABELS)
    assert [row["index"] for row in manifest(str(tmp_path))] == list(range(n))


def test_refusals(tmp_path: Path) -> None:
    ShardWriter(str(tmp_path / "out"), RUN, PER_SHARD).begin(4)
    changed = RUN | {"sampling": {"steps": 50, "multipliers": (1, 2)}}
    with pytest.raises(UserError, match=r"out was made with other settings: sampling.steps 20 → 50; choose"):
        ShardWriter(str(tmp_path / "out"), changed, PER_SHARD).begin(4)
    with pytest.raises(UserError, match="images_per_shard 4 → 8"):
        ShardWriter(str(tmp_path / "out"), RUN, 8).begin(4)
    with pytest.raises(UserError, match="was not made by diffgen"):
        ShardWriter(str(tmp_path), RUN, PER_SHARD).begin(4)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: cannot be read or written \([^\n]*\)$"):
        ShardWriter(str(tmp_path / "file"), RUN, PER_SHARD).begin(4)


def test_stale_temporary_files_go(tmp_path: Path) -> None:
    (tmp_path / ".tmp" / "tmpabc").mkdir(parents=True)
    (tmp_path / ".tmp" / "tmpabc" / "shard.tar").write_bytes(b"half")
    ShardWriter(str(tmp_path), RUN, PER_SHARD).begin(4)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
