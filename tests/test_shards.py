"""Tars of the same content have the same bytes and are read as far as they are whole; PNGs."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffgen.shards import canonical_json, members, open_png, pack, samples, tar_writer


def test_tar_bytes_repeat_and_split(tmp_path: Path) -> None:
    members = [("0.png", b"i" * 700), ("0.mask.png", b"m"), ("1.png", b"j" * 3000)]
    assert pack(tmp_path / "a", members) == pack(tmp_path / "b", iter(members))
    whole = (tmp_path / "a").read_bytes()
    assert whole == (tmp_path / "b").read_bytes()
    expected = [("0", {"png": b"i" * 700, "mask.png": b"m"}), ("1", {"png": b"j" * 3000})]
    for length in range(0, len(whole), 97):
        found = list(samples(io.BytesIO(whole[:length])))
        # The last one may lack members; those that are there are whole.
        assert [key for key, _ in found] == [key for key, _ in expected[: len(found)]]
        for (_, files), (_, all_files) in zip(found, expected, strict=False):
            assert files.items() <= all_files.items()
    assert list(samples(io.BytesIO(whole))) == expected


def test_json_is_a_fixed_point() -> None:
    data = canonical_json({"é": {10: 0.1, 9: (1, 2)}, "a": None})
    assert data == '{"a":null,"é":{"10":0.1,"9":[1,2]}}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})


def test_tars_repeat() -> None:
    tars = []
    for _ in range(2):
        sink = io.BytesIO()
        with tar_writer(sink) as tar:
            tar.write({"__key__": "0", "png": b"p" * 700, "json": b"{}"})
        tars.append(sink.getvalue())
    assert tars[0] == tars[1]
    with tarfile.open(fileobj=io.BytesIO(tars[0])) as tar:
        facts = [(m.name, m.mtime, m.mode, m.uname, m.gname, m.uid, m.gid) for m in tar]
    assert facts == [(f"0.{end}", 0, 0o644, "diffgen", "diffgen", 0, 0) for end in ("json", "png")]


def test_members_lie_where_the_table_says(tmp_path: Path) -> None:
    pack(tmp_path / "a", [("0.png", b"i" * 700), ("0.json", b"{}")])
    whole = (tmp_path / "a").read_bytes()
    found = members(io.BytesIO(whole))
    assert {name: whole[at.offset : at.offset + at.size] for name, at in found.items()} == {
        "0.png": b"i" * 700,
        "0.json": b"{}",
    }


def test_a_damaged_png_is_named() -> None:
    sink = io.BytesIO()
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(sink, "PNG")
    data = sink.getvalue()
    assert open_png(data, decode=True).size == (6, 4)
    for broken in (data[:-20], b"", data[:40] + b"x" + data[41:]):
        with pytest.raises(ValueError, match=r"^has a damaged PNG"):
            open_png(broken, decode=True)
    other = io.BytesIO()
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(other, "JPEG")
    with pytest.raises(ValueError, match="where a PNG belongs"):
        open_png(other.getvalue(), decode=False)
