import tarfile
from pathlib import Path

import pytest

from diffgen.data.cut import Sample
from diffgen.data.shards import ShardWriter


def sample(i: int, split: str = "train") -> Sample:
    meta = {"source": "a", "x": i, "y": 0, "labelled": True, "context": 0, "shares": [0.0, 1.0]}
    return Sample("image", split, meta, b"rgb %d" % i, b"mask")


def test_shards_hold_a_fixed_number_and_members_in_order(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, 2) as writer:
        for i in range(3):
            writer.write(sample(i))
        writer.write(sample(3, "test"))
    names = ["image-test-000000.tar", "image-train-000000.tar", "image-train-000001.tar"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    with tarfile.open(tmp_path / names[1]) as tar:
        keys = ("000000000", "000000001")
        assert tar.getnames() == [f"{key}.{end}" for key in keys for end in ("json", "mask.png", "png")]
        assert {(m.mtime, m.uname, m.gname) for m in tar} == {(0, "diffgen", "diffgen")}
    assert [row["key"] for row in writer.rows] == ["000000000", "000000001", "000000002", "000000000"]


def test_a_run_that_breaks_off_leaves_no_half_shard_and_the_next_starts_afresh(tmp_path: Path) -> None:
    def broken_off() -> None:
        with ShardWriter(tmp_path, 2) as writer:
            for i in range(3):
                writer.write(sample(i))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert [path.name for path in tmp_path.iterdir()] == ["image-train-000000.tar"]
    with ShardWriter(tmp_path, 2):
        pass
    assert not list(tmp_path.iterdir())
