import shutil
from pathlib import Path

import pytest

from diffgen.errors import UserError
from diffgen.models import bundle, shipped


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_bundle, tmp_path / "bundles" / "tiny")
    digest = bundle.digest(bundle.pack(tiny_bundle))
    (tmp_path / "bundles" / shipped.DIGESTS).write_text(f"{digest}  tiny\n")
    return tmp_path / "bundles"


def test_a_name_is_a_shipped_bundle(folder: Path) -> None:
    assert shipped.resolve("tiny", folder) == str(folder / "tiny")


def test_folders_and_urls_come_first(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert shipped.resolve("tiny", folder) == "tiny"
    assert shipped.resolve("s3://bucket/tiny", folder) == "s3://bucket/tiny"


def test_an_unknown_name_is_told_what_ships(folder: Path) -> None:
    with pytest.raises(UserError, match=r"'typo'.*tiny"):
        shipped.resolve("typo", folder)


def test_a_damaged_one_is_refused(folder: Path) -> None:
    weights = next((folder / "tiny" / "image_unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"'tiny'.*damaged"):
        shipped.resolve("tiny", folder)


def test_what_ships_is_whole() -> None:
    for name in shipped.digests():
        made = bundle.load(Path(shipped.resolve(name)))
        assert made.image_unet is not None
        assert made.mask_unet is not None
