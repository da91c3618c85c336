"""The store: whole files or none, any filesystem, nothing left behind."""

import json
import pickle
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from diffgen.errors import UserError
from diffgen.synthesis.store import RUN, Store, canonical_json, pack


@pytest.fixture(params=["local", "file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    urls = {
        "local": str(tmp_path / "out"),
        "file": (tmp_path / "o ut").as_uri(),
        "memory": f"memory://{uuid.uuid4().hex}/out",
    }
    return Store(urls[request.param])


def test_files_come_and_go(store: Store) -> None:
    assert store.entries() == []
    assert store.files("manifest", ".parquet") == {}
    store.write("a.tar", b"12345")
    store.write("a.tar", b"123")
    store.write("manifest/b.parquet", b"b")
    store.write("manifest/a.parquet", b"")
    assert store.read("a.tar") == b"123"
    assert store.entries() == ["a.tar", "manifest"]
    assert list(store.files("manifest", ".parquet").items()) == [("a.parquet", 0), ("b.parquet", 1)]
    assert store.files("", "") == {"a.tar": 3}
    store.delete("a.tar")
    store.delete("a.tar")
    assert not store.exists("a.tar")
    with pytest.raises(FileNotFoundError):
        store.read("a.tar")


def test_upload_moves(store: Store) -> None:
    with store.scratch() as scratch:
        (scratch / "big").write_bytes(b"x" * 100_000)
        store.upload(scratch / "big", "deep/big")
        assert not (scratch / "big").exists()
    assert store.read("deep/big") == b"x" * 100_000
    assert store.entries() == ["deep"]


def test_holds_exactly_these_bytes(store: Store) -> None:
    sha256 = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"  # of "foo"
    assert not store.holds("a", 3, sha256)
    store.write("a", b"foo")
    assert store.holds("a", 3, sha256)
    store.write("a", b"fop")
    assert not store.holds("a", 3, sha256)


def test_is_picklable_when_open(store: Store) -> None:
    store.write("a", b"1")
    assert pickle.loads(pickle.dumps(store)).read("a") == b"1"


def test_relative_path_is_of_its_maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("out")
    monkeypatch.chdir("/")
    store.write("a", b"1")
    assert (tmp_path / "out" / "a").read_bytes() == b"1"


def test_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    store.write("a", b"old")

    def killed(_self: Path, _target: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            store.write("a", b"new")
    assert store.read("a") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_clean_after_a_real_kill(tmp_path: Path) -> None:
    program = (
        "import os, sys; from diffgen.synthesis.store import Store\n"
        "with Store(sys.argv[1]).scratch() as s: (s / 'half').write_bytes(b'1'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 9
    (tmp_path / "kept").write_bytes(b"1")
    (tmp_path / ".tmp" / "stale").write_bytes(b"1")
    outside = tmp_path / "folder"
    outside.mkdir()
    (outside / "also kept").write_bytes(b"1")
    (tmp_path / ".tmp" / "link").symlink_to(outside)
    assert len(list((tmp_path / ".tmp").rglob("half"))) == 1
    Store(str(tmp_path)).clean()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["also kept", "folder", "kept"]


def test_mode_is_the_users(tmp_path: Path) -> None:
    """A temporary file is private; what comes of it must not be."""
    (tmp_path / "plain").write_bytes(b"")
    Store(str(tmp_path)).write("a", b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("url", ["nosuch://x/y", "s3://bucket/x?nonsense=1", "file://relative"])
def test_unknown_url_is_one_line(url: str) -> None:
    with pytest.raises(UserError, match=r"^[^\n]*cannot be opened[^\n]*$") as caught:
        Store(url).entries()
    assert url in str(caught.value)


def test_claim(store: Store) -> None:
    store.claim({"seed": 1, "sampling": {"steps": 20}})
    store.claim({"sampling": {"steps": 20}, "seed": 1})
    with pytest.raises(
        UserError, match=r"was made with other settings: sampling.steps 20 → 50; choose anoth"
    ):
        store.claim({"seed": 1, "sampling": {"steps": 50}})
    with pytest.raises(UserError, match=r"a None → 1; b None → 1; c None → 1; … and 2 more; choose"):
        store.claim({"seed": 2, "sampling": {"steps": 20}, "a": 1, "b": 1, "c": 1, "d": 1} | {"seed": 2})
    with pytest.raises(UserError, match="other settings"):
        store.claim({"seed": 1, "sampling": {"steps": 20}, "new": None})
    store.write(RUN, b'{"seed"')
    with pytest.raises(UserError, match=r"run\.json is not readable"):
        store.claim({"seed": 1})


ON_CPU = {"device": "cpu", "precision": "fp32", "torch": "2.13.0"}
RUN_ON_CPU = {"seed": 1, "sampling": {"steps": 20, "precision": "fp32", "micro_batch": 8}}
RUN_ON_GPU = {"seed": 1, "sampling": {"steps": 20, "precision": "bf16", "micro_batch": 64}}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"device": "H100"}, "device cpu → H100"),
        ({"precision": "bf16"}, "precision fp32 → bf16"),
        ({"torch": "2.14.0"}, "torch 2.13.0 → 2.14.0"),
    ],
)
def test_another_device_is_refused_unless_they_may_mix(
    store: Store, change: dict[str, str], named: str
) -> None:
    other = ON_CPU | change
    run = RUN_ON_CPU if change.get("precision") is None else RUN_ON_GPU
    store.claim(RUN_ON_CPU, ON_CPU)
    store.claim(RUN_ON_CPU, ON_CPU)
    with pytest.raises(UserError, match=f"made on another device: {named}; .*--mix-devices"):
        store.claim(run, other)
    with pytest.raises(UserError, match="other settings: seed 1 → 2; choose another --out"):
        store.claim(run | {"seed": 2}, other, mix=True)
    store.claim(run, other, mix=True)
    store.claim(run, other)
    store.claim(RUN_ON_CPU, ON_CPU)
    assert json.loads(store.read(RUN)) == RUN_ON_CPU | {"made_on": [ON_CPU, other]}


def test_on_one_device_another_micro_batch_is_refused(store: Store) -> None:
    store.claim(RUN_ON_CPU, ON_CPU)
    with pytest.raises(UserError, match=r"other settings: sampling.micro_batch 8 → 4"):
        store.claim({"seed": 1, "sampling": RUN_ON_CPU["sampling"] | {"micro_batch": 4}}, ON_CPU)  # type: ignore[operator]


def test_folders_from_before_devices_were_written_down_go_on(store: Store) -> None:
    store.claim(RUN_ON_CPU)
    store.claim(RUN_ON_CPU, ON_CPU)
    with pytest.raises(UserError, match=r"sampling.micro_batch 8 → 64; sampling.precision fp32 → bf16"):
        store.claim(RUN_ON_GPU, ON_CPU | {"device": "H100", "precision": "bf16"})


def test_foreign_folder_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="is not empty and was not made by diffgen synthesize"):
        Store(str(tmp_path)).claim({"seed": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_tar_bytes_repeat_and_split(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    members = [("0.png", b"i" * 700), ("0.mask.png", b"m"), ("1.png", b"j" * 3000)]
    assert pack(tmp_path / "a", members) == pack(tmp_path / "b", iter(members))
    whole = (tmp_path / "a").read_bytes()
    assert whole == (tmp_path / "b").read_bytes()
    samples = [("0", {"png": b"i" * 700, "mask.png": b"m"}), ("1", {"png": b"j" * 3000})]
    for length in range(0, len(whole), 97):
        (tmp_path / "cut").write_bytes(whole[:length])
        found = list(store.samples("cut"))
        # The last one may lack members; those that are there are whole.
        assert [key for key, _ in found] == [key for key, _ in samples[: len(found)]]
        for (_, files), (_, expected) in zip(found, samples, strict=False):
            assert files.items() <= expected.items()
    assert list(store.samples("a")) == samples


def test_json_is_a_fixed_point() -> None:
    data = canonical_json({"é": {10: 0.1, 9: (1, 2)}, "a": None})
    assert data == '{"a":null,"é":{"10":0.1,"9":[1,2]}}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})
