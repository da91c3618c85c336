"""Slides behind URLs are prepared as those of a folder, from a copy that a node fetches once."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from rich.console import Console

from diffgen import cache
from diffgen.config import load
from diffgen.data.fetch import local
from diffgen.data.prepare import prepare
from diffgen.errors import UserError
from tests.data.pictures import save_image, tissue

QUIET = Console(quiet=True)
MASK = np.full((256, 256), 1, np.uint8)
FAR = "memory://bucket/slides"


@pytest.fixture
def slides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Pictures with masks in a folder, and the same behind `FAR`."""
    monkeypatch.setenv(cache.PLACE, str(tmp_path / "cache"))
    folder = tmp_path / "slides"
    for number, name in enumerate(("a/one.png", "b/two.png", ".hidden/three.png")):
        (folder / name).parent.mkdir(parents=True)
        save_image(folder / name, tissue(256, 256, number), MASK)
    store = fsspec.filesystem("memory")
    store.put(str(folder), "/bucket/slides", recursive=True)
    yield folder
    store.rm("/bucket", recursive=True)


def prepared(sources: list[str], out: Path) -> dict[str, bytes]:
    words = [
        "image_model.patch=16",
        "mask_model.patch=8",
        "mask_model.attention=[8]",
        "prepare.assume_mpp=0.5",
    ]
    settings = load(None, [*words, "prepare.classes=[gland]", "prepare.contexts=folder"])
    prepare(sources, out, settings, QUIET, inline=True)
    return {path.name: path.read_bytes() for path in out.glob("*.tar")}


def test_prepared_from_a_url_is_prepared_from_a_folder(slides: Path, tmp_path: Path) -> None:
    far = prepared([FAR], tmp_path / "far")
    assert far == prepared([str(slides)], tmp_path / "near")
    assert far


@pytest.mark.usefixtures("slides")
def test_a_copy_is_made_once_and_anew_where_something_else_lies_there() -> None:
    first = local(FAR)
    assert sorted(path.name for path in first.rglob("*.png")) == [
        "one.png", "one_mask.png", "two.png", "two_mask.png",
    ]  # fmt: skip
    assert local(FAR) == first
    fsspec.filesystem("memory").pipe("/bucket/slides/a/more.png", b"more")
    assert (local(FAR) / "a" / "more.png").read_bytes() == b"more"


@pytest.mark.usefixtures("slides")
def test_a_number_is_not_its_beginning_and_a_mirax_slide_has_a_folder() -> None:
    store = fsspec.filesystem("memory")
    for name in ("1.png", "1_mask.png", "10.png", "s.mrxs", "s/Data.dat", "s/Slidedat.ini", "t/Data.dat"):
        store.pipe(f"/bucket/slides/c/{name}", b"1")
    assert {path.name for path in local(f"{FAR}/c/1.png").parent.iterdir()} == {"1.png", "1_mask.png"}
    copy = local(f"{FAR}/c/s.mrxs").parent
    assert sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*.*")) == [
        "s.mrxs", "s/Data.dat", "s/Slidedat.ini",
    ]  # fmt: skip


@pytest.mark.usefixtures("slides")
def test_a_file_comes_with_what_is_named_like_it() -> None:
    copy = local(f"{FAR}/a/one.png")
    assert sorted(path.name for path in copy.parent.iterdir()) == ["one.png", "one_mask.png"]


def test_what_is_on_this_machine_stays_there(slides: Path) -> None:
    assert local(str(slides)) == slides
    assert local(f"file://{slides}") == slides


@pytest.mark.usefixtures("slides")
@pytest.mark.parametrize("url", [f"{FAR}/none.png", "memory://nothing"])
def test_nothing_there_is_said(url: str) -> None:
    with pytest.raises(UserError, match=f"source {url}: no such file or folder"):
        local(url)
