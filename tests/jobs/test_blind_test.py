"""Pairs of real and drawn crops: what tells them apart is in the key alone."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffgen.errors import UserError
from jobs import blind_test

SIDE = 48


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Real images are violet, drawn ones red; a third of each is glass."""
    rng = np.random.default_rng(0)
    made = []
    for name, colour in (("real", (120, 60, 160)), ("drawn", (190, 60, 90))):
        folder = tmp_path_factory.mktemp(name)
        for k in range(30):
            noise = rng.normal(0, 8, (SIDE, SIDE, 3)) + (colour if k % 3 else (245, 245, 245))
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / f"{name}{k}.png")
        made.append(folder)
    return made[0], made[1]


@pytest.fixture(scope="module")
def blind(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("blind")
    blind_test.main([*map(str, folders), "--to", str(to), "--pairs", "16", "--side", str(SIDE)])
    return to


def crops(blind: Path) -> list[bytes]:
    page = (blind / "index.html").read_text("utf-8")
    return [base64.b64decode(part) for part in re.findall(r"base64,([^\"]+)\"", page)]


def test_the_key_tells_which_was_drawn_and_nothing_else_does(blind: Path) -> None:
    key = json.loads((blind / "key.json").read_text())["drawn"]
    assert sorted(set(key)) == ["A", "B"]
    red = [np.asarray(Image.open(io.BytesIO(crop))).mean((0, 1))[0] > 160 for crop in crops(blind)]
    assert ["A" if a else "B" for a, b in zip(red[::2], red[1::2], strict=True) if a != b] == list(key)
    page = (blind / "index.html").read_text("utf-8")
    assert key not in page
    assert "real0" not in page
    assert {Image.open(io.BytesIO(crop)).format for crop in crops(blind)} == {"JPEG"}
    assert all(Image.open(io.BytesIO(crop)).getexif() == {} for crop in crops(blind))
    assert len({Image.open(io.BytesIO(crop)).size for crop in crops(blind)}) == 1


def test_glass_is_passed_by_and_no_crop_comes_twice(blind: Path) -> None:
    assert len(set(crops(blind))) == 32
    assert max(np.asarray(Image.open(io.BytesIO(crop))).mean() for crop in crops(blind)) < 200


def test_sheets_hold_the_pairs_of_the_page(blind: Path) -> None:
    assert sorted(path.name for path in blind.glob("sheet-*.png")) == ["sheet-1.png", "sheet-2.png"]
    sheet = np.asarray(Image.open(blind / "sheet-1.png"))
    first = np.asarray(Image.open(io.BytesIO(crops(blind)[0])))
    assert (sheet[18 : 18 + blind_test.SHOWN, : blind_test.SHOWN] == first).all()


def test_guesses_are_counted(blind: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = json.loads((blind / "key.json").read_text())["drawn"]
    blind_test.main(["data", "out", "--to", str(blind), "--guesses", key.lower()])
    assert capsys.readouterr().out.startswith("16 of 16 right, 100% [79%, 100%]")
    assert blind_test.counted("AB-B", "ABAA").startswith("2 of 3 right")
    assert blind_test.counted("AB-B", "ABAA").endswith("taken for the other: 4")


@pytest.mark.parametrize("guesses", ["AB", "ABXA", "----"])
def test_letters_that_cannot_be_counted_are_refused(guesses: str) -> None:
    with pytest.raises(UserError, match="--guesses"):
        blind_test.counted(guesses, "ABAA")


def test_too_few_crops_are_said(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too few crops show tissue"):
        blind_test.make(str(folders[0]), str(folders[1]), tmp_path, 21, SIDE, 0)
    with pytest.raises(UserError, match="holds no blind test"):
        blind_test.main(["data", "out", "--to", str(tmp_path), "--guesses", "A"])
