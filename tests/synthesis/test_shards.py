"""The shard writer: killed anywhere, in any folder, it leaves the bytes of an undisturbed run."""

import io
import tarfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffgen.errors import UserError
from diffgen.labels import Labels
from diffgen.synthesis.shards import Sample, ShardWriter, num_shards, shard_indices, shard_of
from diffgen.synthesis.store import Store

LABELS = Labels(("unknown", "tumour", "stroma"))
RUN = {"seed": 7, "sampling": {"steps": 20, "multipliers": (1, 2)}, "bundle": "abc"}
PER_SHARD = 4


class Killed(BaseException):
    """Nobody catches it, as nobody catches a SIGKILL."""


def png(array: np.ndarray[Any, Any]) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(array).save(sink, "PNG")
    return sink.getvalue()


def make_mask(index: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(index).integers(0, 3, (16, 24), dtype=np.uint8)


def make(index: int, run: Any = RUN) -> Sample:
    image = np.random.default_rng(1000 + index).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    mask = make_mask(index)
    record = {
        "index": index,
        "context": "tissue",
        "class_shares": LABELS.shares(mask),
        "forwards": 12 + index,
        "run": run,
    }
    return Sample(index, png(image), png(mask), record, seconds=float(index))


class Maker:
    """The caller of a writer, as the driver is one: makes what is missing, and counts what it made."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def __call__(self, url: str, n: int, verify: bool = False) -> ShardWriter:
        writer = ShardWriter(url, RUN, PER_SHARD, verify)
        done = writer.begin(n)
        for k in sorted(set(range(num_shards(n, PER_SHARD))) - done):
            samples = writer.salvage(k, n)
            missing = [i for i in shard_indices(k, n, PER_SHARD) if i not in samples]
            self.made += missing
            # Backwards: the order in which samples arrive must not matter.
            writer.write(k, [make(i) for i in reversed(missing)] + list(samples.values()))
        writer.finish(n, LABELS)
        return writer


def tars(url: str) -> dict[str, bytes]:
    store = Store(url)
    return {name: store.read(name) for name in store.files("", ".tar")}


def manifest(url: str) -> list[dict[str, Any]]:
    """Rows without the seconds: those of a sample that was read back are not known."""
    rows = pq.read_table(io.BytesIO(Store(url).read("manifest.parquet"))).drop(["seconds"]).to_pylist()
    return list(rows)


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "local" else f"memory://{uuid.uuid4().hex}/out"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], str]:
    """Folder of a run of n samples that nobody interrupted."""
    folders: dict[int, str] = {}

    def run(n: int) -> str:
        if n not in folders:
            folders[n] = str(tmp_path_factory.mktemp("undisturbed") / "out")
            maker = Maker()
            maker(folders[n], n)
            assert maker.made == list(range(n))
        return folders[n]

    return run


@given(n=st.integers(0, 200), per_shard=st.integers(1, 50))
def test_shards_are_a_partition(n: int, per_shard: int) -> None:
    shards = [shard_indices(k, n, per_shard) for k in range(num_shards(n, per_shard))]
    assert [i for shard in shards for i in shard] == list(range(n))
    assert all(shard_of(i, per_shard) == k for k, shard in enumerate(shards) for i in shard)
    assert all(1 <= len(shard) <= per_shard for shard in shards)
    assert len(shard_indices(len(shards), n, per_shard)) == 0


def test_folder_of_a_run(url: str, undisturbed: Callable[[int], str]) -> None:
    Maker()(url, 10)
    store = Store(url)
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
        assert store.read(name) == Store(undisturbed(10)).read(name), name
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


KILLS = ["upload of run.json", "before tar", "half a tar", "between tar and part", "part", "manifest.parquet"]


def kill(monkeypatch: pytest.MonkeyPatch, where: str, shard: str = "shard-000001") -> None:
    """Make the store die at a point of a run."""
    upload = Store.upload

    def killing(self: Store, path: Path, name: str) -> None:
        tar, part = f"{shard}.tar", f"manifest/{shard}.parquet"
        if where == "upload of run.json" or (where == name == "manifest.parquet"):
            raise Killed
        if where == "before tar" and name == tar:
            raise Killed
        if where == "half a tar" and name == tar:
            # Only a store without renames can show this.
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            upload(self, path, name)
            raise Killed
        if where == "between tar and part" and name == part:
            raise Killed
        upload(self, path, name)
        if where == "part" and name == part:
            raise Killed

    monkeypatch.setattr(Store, "upload", killing)


@pytest.mark.parametrize("where", KILLS)
def test_killed_and_resumed(
    url: str, where: str, monkeypatch: pytest.MonkeyPatch, undisturbed: Callable[[int], str]
) -> None:
    maker = Maker()
    with monkeypatch.context() as patch:
        kill(patch, where)
        with pytest.raises(Killed):
            maker(url, 10)
    maker(url, 10)
    assert tars(url) == tars(undisturbed(10))
    assert manifest(url) == manifest(undisturbed(10))
    again = {"upload of run.json": 0, "before tar": 4, "half a tar": 2}.get(where, 0)
    assert len(maker.made) == 10 + again  # only what nowhere stood whole is made twice


@pytest.mark.parametrize("where", ["before tar", "between tar and part", "part"])
def test_killed_while_growing(
    url: str, where: str, monkeypatch: pytest.MonkeyPatch, undisturbed: Callable[[int], str]
) -> None:
    maker = Maker()
    maker(url, 6)
    with monkeypatch.context() as patch:
        kill(patch, where)
        with pytest.raises(Killed):
            maker(url, 10)
    store = Store(url)
    assert store.exists("manifest/shard-000001.parquet") == (where == "part")
    assert store.exists("shard-000001.tar")
    maker(url, 10)
    assert tars(url) == tars(undisturbed(10))
    assert manifest(url) == manifest(undisturbed(10))
    assert [maker.made.count(i) for i in (4, 5)] == [1, 1]


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
    seconds = pq.read_table(io.BytesIO(Store(url).read("manifest.parquet")))["seconds"].to_pylist()
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


def test_whole_tar_without_part_is_adopted_in_place(tmp_path: Path) -> None:
    Maker()(str(tmp_path), 10)
    tar, part = tmp_path / "shard-000001.tar", tmp_path / "manifest" / "shard-000001.parquet"
    inode = tar.stat().st_ino
    part.unlink()
    assert ShardWriter(str(tmp_path), RUN, PER_SHARD).begin(10) == {0, 1, 2}
    assert tar.stat().st_ino == inode
    assert pq.read_table(part)["seconds"].to_pylist() == [None] * 4


def change(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    assert len(old) == len(new)
    path.write_bytes(data.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (make(5).image[60:90], b"\0" * 30),
        (make(5).mask[45:50], b"\0" * 5),
        (b'"forwards":17', b'"forwards":18'),
        (b'"index":5', b'"index":6'),
    ],
    ids=["image", "mask", "record", "index"],
)
def test_damaged_committed_tar_is_mended(
    tmp_path: Path, old: bytes, new: bytes, undisturbed: Callable[[int], str], capfd: Any
) -> None:
    maker = Maker()
    maker(str(tmp_path), 10)
    change(tmp_path / "shard-000001.tar", old, new)
    assert ShardWriter(str(tmp_path), RUN, PER_SHARD).begin(10) == {0, 1, 2}  # by size alone: not seen
    maker(str(tmp_path), 10, verify=True)
    assert "gives another sha256" in capfd.readouterr().err
    assert maker.made == [*range(10), 5]
    assert tars(str(tmp_path)) == tars(undisturbed(10))
    assert manifest(str(tmp_path)) == manifest(undisturbed(10))


@pytest.mark.parametrize("part", ["kept", "gone", "damaged"])
def test_truncated_tar_is_salvaged(tmp_path: Path, part: str, undisturbed: Callable[[int], str]) -> None:
    maker = Maker()
    maker(str(tmp_path), 10)
    tar = tmp_path / "shard-000000.tar"
    at = tar.read_bytes().index(b"000000003.mask.png")
    tar.write_bytes(tar.read_bytes()[: at + 700])
    if part == "gone":
        (tmp_path / "manifest" / "shard-000000.parquet").unlink()
    elif part == "damaged":
        (tmp_path / "manifest" / "shard-000000.parquet").write_bytes(b"PAR1 and no more")
    maker(str(tmp_path), 10)
    assert maker.made == [*range(10), 3]
    assert tars(str(tmp_path)) == tars(undisturbed(10))


def test_missing_tar_is_made_again(tmp_path: Path, undisturbed: Callable[[int], str], capfd: Any) -> None:
    maker = Maker()
    maker(str(tmp_path), 10)
    (tmp_path / "shard-000002.tar").unlink()
    maker(str(tmp_path), 10)
    assert "manifest/shard-000002.parquet has no tar" in capfd.readouterr().err
    assert maker.made == [*range(10), 8, 9]
    assert tars(str(tmp_path)) == tars(undisturbed(10))


def test_samples_of_another_run_are_not_adopted(tmp_path: Path) -> None:
    other = ShardWriter(str(tmp_path / "other"), {"seed": 8}, PER_SHARD)
    other.begin(4)
    other.write(0, [make(i, {"seed": 8}) for i in range(4)])
    writer = ShardWriter(str(tmp_path / "out"), RUN, PER_SHARD)
    writer.begin(4)
    (tmp_path / "other" / "shard-000000.tar").rename(tmp_path / "out" / "shard-000000.tar")
    assert writer.begin(4) == set()
    assert writer.salvage(0, 4) == {}


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
