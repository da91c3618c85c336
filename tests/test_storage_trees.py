"""Folders in a folder: the same on a local disk and behind a URL; whole under their names or not there."""

import pickle
import shutil
import uuid
from pathlib import Path

import pyarrow.fs
import pytest

from diffgen import storage
from diffgen.errors import UserError
from diffgen.storage import Folder, fetched


@pytest.fixture(params=["local", "file", "memory"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    urls = {
        "local": str(tmp_path / "runs" / "one"),
        "file": (tmp_path / "r uns" / "one").as_uri(),
        "memory": f"memory://{uuid.uuid4().hex}/runs/one",
    }
    return Folder(urls[request.param])


@pytest.fixture
def built(tmp_path: Path) -> Path:
    return make(tmp_path / "built", {"model_index.json": "1", "unet/weights": "a", "labels.json": "{}"})


def make(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def content(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_texts_come_and_change(run: Folder) -> None:
    assert run.read_text("run.yaml") is None
    assert not run.exists("run.yaml")
    run.write_text("run.yaml", "a: µ\n")
    run.write_text("run.yaml", "b: ß\n")
    run.write_text("best/mask.json", "{}")
    assert run.read_text("run.yaml") == "b: ß\n"
    assert run.exists("run.yaml")
    assert run.exists("best")
    assert run.exists("best/mask.json")


def test_a_folder_goes_and_comes(run: Folder, built: Path, tmp_path: Path) -> None:
    run.push(built, "deep/bundle")
    pulled = run.pull("deep/bundle", tmp_path / "pulled")
    assert content(pulled) == content(built)
    assert content(run.pull("deep/bundle/unet", tmp_path / "unet")) == {"weights": "a"}
    (built / "unet" / "weights").write_text("b")
    run.push(built, "deep/bundle")
    assert content(run.pull("deep/bundle", tmp_path / "again"))["unet/weights"] == "b"


def test_what_is_not_there_pulls_nothing(run: Folder, tmp_path: Path) -> None:
    pulled = run.pull("bundle", tmp_path / "pulled")
    assert not pulled.exists()
    assert not run.exists("bundle")


def test_it_travels_and_means_the_same_place(
    run: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.write_text("a", "1")
    assert pickle.loads(pickle.dumps(run)).read_text("a") == "1"
    monkeypatch.chdir(tmp_path)
    relative = Folder("runs/lung")
    monkeypatch.chdir("/")
    assert relative.local == tmp_path / "runs" / "lung"
    relative.write_text("a", "2")
    assert (tmp_path / "runs" / "lung" / "a").read_text() == "2"


def test_where_it_is(run: Folder, tmp_path: Path) -> None:
    """`storage` is what Ray Train writes through, so it means the same files."""
    assert (run.local is None) == run.url.startswith("memory://")
    filesystem, path = run.storage()
    filesystem.create_dir(path, recursive=True)
    with filesystem.open_output_stream(f"{path}/b") as sink:
        sink.write(b"3")
    assert run.read_text("b") == "3"
    assert Folder(f"{run.url}/").read_text("b") == "3"
    if run.local:
        assert (run.local / "b").read_text() == "3"
        assert tmp_path in run.local.parents


def test_a_local_folder_is_replaced_whole(tmp_path: Path, built: Path) -> None:
    run = Folder(str(tmp_path / "run"))
    run.push(built, "bundle")
    other = make(tmp_path / "other", {"x": "2"})
    run.push(other, "bundle")
    assert content(tmp_path / "run") == {"bundle/x": "2"}, "nothing old, nothing temporary"
    run.push(tmp_path / "run" / "bundle", "bundle")
    assert content(tmp_path / "run") == {"bundle/x": "2"}


@pytest.mark.parametrize("dies_in", ["copytree", "sync"])
def test_a_copy_that_is_cut_short_leaves_the_old_folder(
    tmp_path: Path, built: Path, monkeypatch: pytest.MonkeyPatch, dies_in: str
) -> None:
    run = Folder(str(tmp_path / "run"))
    run.push(built, "bundle")
    other = make(tmp_path / "other", {"x": "2"})

    def killed(*_: object) -> None:
        if dies_in == "copytree":
            make(tmp_path / "run" / ".bundle.partial", {"half": ""})
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*((shutil, "copytree") if dies_in == "copytree" else (storage, "sync")), killed)
        with pytest.raises(KeyboardInterrupt):
            run.push(other, "bundle")
    assert content(tmp_path / "run" / "bundle") == content(built)
    run.push(other, "bundle")
    assert content(tmp_path / "run") == {"bundle/x": "2"}, "what the killed one left is gone"


def test_a_remote_index_stands_only_while_the_folder_is_whole(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sending stops at each file in turn: the index never stands beside files of two versions."""
    make(built, {"unet/model.safetensors.index.json": "1"})
    names, send = set(content(built)), storage.send
    indexes = ["unet/model.safetensors.index.json", "model_index.json"]
    for stop in range(len(names)):
        run, sent = Folder(f"memory://{uuid.uuid4().hex}/run"), list[str]()
        run.push(built, "bundle")
        run.push(make(built.parent / "more", {"sample.png": "x"}), "bundle")

        def until(source, filesystem, path: str, sent=sent, stop=stop) -> None:  # type: ignore[no-untyped-def]
            if len(sent) == stop:
                raise ConnectionError
            sent.append(path.partition("bundle/")[2])
            send(source, filesystem, path)

        with monkeypatch.context() as patch:
            patch.setattr(storage, "send", until)
            with pytest.raises(ConnectionError):
                run.push(built, "bundle")
        assert not run.exists("bundle/model_index.json")
        assert run.exists("bundle/sample.png"), "files of other names stay"
        run.push(built, "bundle")
        assert run.exists("bundle/model_index.json")
    assert set(sent[:-1]) == names - set(indexes)
    assert sent[-1] == indexes[0], "indexes last, the topmost very last"


@pytest.mark.parametrize("url", ["nonsense://x/y", "s3://"])
def test_an_unknown_url_is_one_line(url: str) -> None:
    with pytest.raises(UserError, match="cannot be opened") as error:
        Folder(url).exists("a")
    assert "\n" not in str(error.value)


SMALL = "allow_delayed_open=true"  # small files in one request


@pytest.mark.parametrize(
    ("url", "endpoint", "asked"),
    [
        ("s3://b/r", None, f"s3://b/r?{SMALL}"),
        ("s3://b/r", "http://127.0.0.1:9", f"s3://b/r?{SMALL}&endpoint_override=127.0.0.1%3A9&scheme=http"),
        ("s3://b/r", "https://store/", f"s3://b/r?{SMALL}&endpoint_override=store&scheme=https"),
        ("s3://b/r?region=x", "store", f"s3://b/r?region=x&{SMALL}&endpoint_override=store&scheme=https"),
        ("s3://b/r?endpoint_override=c", "http://d", f"s3://b/r?endpoint_override=c&{SMALL}"),
        ("s3://b/r?allow_delayed_open=false", None, None),
        ("memory://b/r", "http://127.0.0.1:9", None),
    ],
)
def test_the_environment_names_the_s3_server(
    monkeypatch: pytest.MonkeyPatch, url: str, endpoint: str | None, asked: str | None
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    seen, real = [], pyarrow.fs.FileSystem

    class Spy:
        @staticmethod
        def from_uri(uri: str) -> object:
            seen.append(uri)
            return real.from_uri("file:///") if uri.startswith("s3") else real.from_uri(uri)

    monkeypatch.setattr(pyarrow.fs, "FileSystem", Spy)
    Folder(url).exists("a")
    assert seen == [asked or url]


def test_a_folder_that_is_removed_is_gone(run: Folder, built: Path, tmp_path: Path) -> None:
    run.push(built, "best/image/step-1")
    run.remove("best/image/step-1")
    run.remove("best/image/step-1")
    assert not content(run.pull("best/image/step-1", tmp_path / "pulled"))
    run.write_text("best/image.json", "{}")
    assert run.exists("best/image.json")


def test_a_bundle_is_fetched_from_anywhere(run: Folder, built: Path, tmp_path: Path) -> None:
    run.push(built, "bundle")
    assert content(fetched(f"{run}/bundle/", tmp_path / "copy")) == content(built)


def test_a_url_without_a_bundle_is_named() -> None:
    nowhere = f"memory://{uuid.uuid4().hex}/bundle"
    with pytest.raises(UserError, match=f"^{nowhere} is not a bundle"):
        fetched(nowhere, Path("unused"))
