import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from diffgen.data.cut import EncodedPatch
from diffgen.data.shards import MARK, PatchWriter
from diffgen.errors import UserError


def sample(i: int, split: str = "train") -> EncodedPatch:
    place = {"x": i, "y": 0, "height": 8, "width": 8}
    meta = {"source": "a", **place, "labelled": True, "context": 0, "shares": [0.0, 1.0]}
    return EncodedPatch("image", split, meta, b"rgb %d" % i, b"mask")


def test_shards_hold_a_fixed_number_and_members_in_order(tmp_path: Path) -> None:
    with PatchWriter(tmp_path, 2) as writer:
        for i in range(3):
            writer.write(sample(i))
        writer.write(sample(3, "test"))
    names = ["image-test-000000.tar", "image-train-000000.tar", "image-train-000001.tar"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*names, MARK]
    with tarfile.open(tmp_path / names[1]) as tar:
        keys = ("000000000", "000000001")
        assert tar.getnames() == [f"{key}.{end}" for key in keys for end in ("json", "mask.png", "png")]
        assert {(m.mtime, m.uname, m.gname) for m in tar} == {(0, "diffgen", "diffgen")}
    assert [row["key"] for row in writer.rows] == ["000000000", "000000001", "000000002", "000000000"]


def test_a_run_that_breaks_off_leaves_no_half_shard_and_the_next_starts_afresh(tmp_path: Path) -> None:
    def broken_off() -> None:
        with PatchWriter(tmp_path, 2) as writer:
            for i in range(3):
                writer.write(sample(i))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image-train-000000.tar", MARK]
    with PatchWriter(tmp_path, 2):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [MARK]


def test_what_a_killed_run_left_goes_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from tests.data.test_shards import *\n"
        "with PatchWriter(Path(sys.argv[1]), 2) as writer:\n"
        "    for i in range(3): writer.write(sample(i))\n"
        "    os._exit(9)"
    )
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    killed = subprocess.run([sys.executable, "-c", program, tmp_path], check=False, env=environment)
    assert killed.returncode == 9
    left = ["image-train-000000.tar", "image-train-000001.tar.partial"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*left, MARK]
    others = ["image-atlas.tar", "mask-train.tar", "notes.partial"]
    for name in [*others, "patches.parquet", "labels.json.partial"]:
        (tmp_path / name).write_bytes(b"")
    with PatchWriter(tmp_path, 2):
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, MARK])


@pytest.mark.parametrize("name", ["image-train-000000.tar", "download.partial", MARK])
def test_a_folder_without_our_mark_is_refused_untouched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with (
        pytest.raises(UserError, match="is not empty and was not made by diffgen prepare"),
        PatchWriter(tmp_path, 2),
    ):
        raise AssertionError("not refused")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: b"mine"}


def test_a_run_killed_while_it_marks_the_folder_can_start_again(tmp_path: Path) -> None:
    (tmp_path / f"{MARK}.partial").write_bytes(b"{")
    with PatchWriter(tmp_path, 2):
        assert [path.name for path in tmp_path.iterdir()] == [MARK]
