"""The shard writer: killed anywhere, in any folder, it leaves the bytes of an undisturbed run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from diffgen.storage import Folder
from diffgen.synthesis.shards import ShardWriter
from tests.synthesis.shard_runs import PER_SHARD, RUN, Maker, make, manifest, tars


class Killed(BaseException):
    """Nobody catches it, as nobody catches a SIGKILL."""


KILLS = ["upload of run.json", "before tar", "half a tar", "between tar and part", "part", "manifest.parquet"]


def kill(monkeypatch: pytest.MonkeyPatch, where: str, shard: str = "shard-000001") -> None:
    """Make the store die at a point of a run."""
    upload = Folder.upload

    def killing(self: Folder, path: Path, name: str) -> None:
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

    monkeypatch.setattr(Folder, "upload", killing)


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
    store = Folder(url)
    assert store.exists("manifest/shard-000001.parquet") == (where == "part")
    assert store.exists("shard-000001.tar")
    maker(url, 10)
    assert tars(url) == tars(undisturbed(10))
    assert manifest(url) == manifest(undisturbed(10))
    assert [maker.made.count(i) for i in (4, 5)] == [1, 1]


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


def test_parts_from_before_a_column_came_are_as_good(tmp_path: Path, capfd: Any) -> None:
    """`failed` is the last column that came; a folder of before goes on without reading its tars anew."""
    maker = Maker()
    maker(str(tmp_path), 4)
    part = tmp_path / "manifest" / "shard-000000.parquet"
    pq.write_table(pq.read_table(part).drop(["failed"]), part)
    maker(str(tmp_path), 6)
    assert capfd.readouterr().err == ""
    assert maker.made == list(range(6))
    assert [row["failed"] for row in manifest(str(tmp_path))] == [None] * 6
