"""Prepared data behind a URL is that of a folder: read through a copy, added to, written whole."""

from pathlib import Path

import numpy as np
import pytest

from diffgen import cache, config
from diffgen.data import remote
from diffgen.data.shards import COMPLETE
from diffgen.data.stream import PatchTable, statistics
from diffgen.errors import UserError
from diffgen.labels import Labels
from diffgen.storage import Folder
from tests.data import prepared


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.PLACE, str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path: Path, tiny: config.Settings, labels: Labels) -> Path:
    return prepared.make(tmp_path / "data", tiny, labels)


def test_a_folder_is_itself(data: Path) -> None:
    assert remote.local(data) == data
    with remote.output(str(data)) as folder:
        assert folder == data


def test_a_copy_has_the_same_patches(data: Path) -> None:
    copy = remote.local(f"file://{data}")
    assert copy.parent == cache.root()
    assert statistics(copy) == statistics(data)
    one, other = PatchTable(copy, "image"), PatchTable(data, "image")
    assert len(one) == len(other) > 0
    assert np.array_equal(one.picture(0), other.picture(0))
    assert remote.local(f"file://{data}") == copy


def test_other_data_at_the_same_place_is_another_copy(data: Path) -> None:
    before = remote.local(f"file://{data}")
    (data / COMPLETE).write_text((data / COMPLETE).read_text() + " ")
    assert remote.local(f"file://{data}") != before


def test_no_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"file://.*/nothing holds no prepared data"):
        remote.local(f"file://{tmp_path}/nothing")


def test_what_is_made_goes_there_whole_or_not_at_all(data: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/far"

    def fail() -> None:
        with remote.output(url) as folder:
            folder.mkdir()
            (folder / "image-train-000000.tar").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert Folder(url).entries() == []
    with remote.output(url) as folder:
        for name in Folder(str(data)).files(""):
            folder.mkdir(exist_ok=True)
            (folder / name).write_bytes((data / name).read_bytes())
        (folder / "prepare.json").write_text("{}")
    assert set(Folder(url).entries()) == {*Folder(str(data)).entries(), "prepare.json"}
    with remote.output(url) as folder:  # as it is, to be added to
        assert statistics(folder) == statistics(data)


def test_what_is_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "thesis.txt").touch()
    with (
        pytest.raises(UserError, match="was not made by diffgen prepare"),
        remote.output(f"file://{tmp_path}/far"),
    ):
        pass
