"""What goes to a machine without a network, and what comes back: small enough, and whole or refused."""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffgen.errors import UserError
from jobs import travel
from jobs.record import Record
from tests.data.pictures import tissue


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of 30 pictures with their masks."""
    for number in range(30):
        for name in ("images", "masks"):
            (tmp_path / "source" / name).mkdir(parents=True, exist_ok=True)
        picture = tissue(64, 64, number)
        Image.fromarray(picture).save(tmp_path / "source" / "images" / f"normal-000-{number:04d}.png")
        mask = (picture[..., 0] < 200).astype(np.uint8) * 255
        Image.fromarray(mask).save(tmp_path / "source" / "masks" / f"normal-000-{number:04d}.png")
    return tmp_path / "source"


@pytest.fixture
def run(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A run that has trained."""
    folder = tmp_path / "runs" / "there"
    shutil.copytree(tiny_bundle, folder / "bundle")
    shutil.copytree(tiny_bundle / "image_unet", folder / "best" / "image" / "step-0000004" / "unet")
    (folder / "samples").mkdir()
    for step in (2, 4):
        Image.new("RGB", (8, step)).save(folder / "samples" / f"image-{step:07d}.png")
    Record(
        folder, {"prepare": 1.0, "image": 5.0, "card": 1.0}, {"image": 6.0}, ["diffgen train"], "one card"
    ).save()
    return folder


def test_a_pack_has_what_the_recipe_needs(source: Path, tmp_path: Path) -> None:
    travel.pack(source, tmp_path / "pack", None)
    assert (tmp_path / "pack" / "run.sh").exists()
    for name in ("diffgen/cli.py", "conf/tissue.yaml", "jobs/bundle.py", "jobs/data_licences.yaml"):
        assert (tmp_path / "pack" / "code" / name).exists(), name
    with tarfile.open(tmp_path / "pack" / "pictures.tar.gz") as tar:
        tar.extractall(tmp_path / "there", filter="data")
    real = np.asarray(Image.open(source / "images" / "normal-000-0007.png")).astype(int)
    came = np.asarray(Image.open(tmp_path / "there" / "images" / "normal-000-0007.avif")).astype(int)
    assert np.abs(real - came).mean() < 2
    mask = (tmp_path / "there" / "masks" / "normal-000-0007.png").read_bytes()
    assert mask == (source / "masks" / "normal-000-0007.png").read_bytes()


def test_pictures_are_as_good_as_there_is_room_for(source: Path) -> None:
    images = sorted((source / "images").iterdir())
    found = [travel.fitting(images, room) for room in (1e6, 60e3, 45e3)]
    assert found[0] == max(travel.QUALITIES)
    assert found == sorted(found, reverse=True)
    assert found[0] > found[2]
    with pytest.raises(UserError, match="30 pictures do not fit"):
        travel.fitting(images, 1e3)


def test_a_pack_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no pictures"):
        travel.pack(tmp_path, tmp_path / "pack", None)


def test_a_result_comes_back_as_a_bundle(run: Path, tmp_path: Path) -> None:
    from diffgen.models import bundle

    travel.collect(run, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "bundle.tar.1of1", "checkpoint.tar.1of1", "curves.json", "samples.png",
    }  # fmt: skip
    assert Image.open(tmp_path / "out" / "samples.png").size == (8, 4)
    home = tmp_path / "runs" / "home"
    travel.unpack(tmp_path / "out", home)
    mine, came = bundle.load(run / "bundle").image_unet, bundle.load(home / "bundle").image_unet
    assert mine is not None
    assert came is not None
    for a, b in zip(mine.parameters(), came.parameters(), strict=True):
        assert b.equal(a.half().float())
    record = Record.of(home)
    assert record.seconds == {"image": 5.0}, "prepared data does not travel, and the card is written anew"
    assert record.machine == "one card"


def test_a_checkpoint_without_room_is_left_out(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(travel, "FILES", 4)
    travel.collect(run, tmp_path / "out")
    assert not list((tmp_path / "out").glob("checkpoint*"))


@pytest.mark.parametrize("mistake", ["missing", "cut"])
def test_a_piece_that_is_not_whole_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    monkeypatch.setattr(travel, "PIECE", 81920)
    travel.collect(run, tmp_path / "out")
    pieces = sorted((tmp_path / "out").glob("bundle.tar.*"))
    assert len(pieces) > 2
    if mistake == "missing":
        pieces[1].unlink()
    else:
        pieces[-1].write_bytes(pieces[-1].read_bytes()[:-12288])
    with pytest.raises(UserError, match=r"a piece of bundle\.tar is missing or cut off"):
        travel.unpack(tmp_path / "out", tmp_path / "runs" / "home")


def test_a_bundle_is_not_written_over(run: Path, tmp_path: Path) -> None:
    travel.collect(run, tmp_path / "out")
    with pytest.raises(UserError, match="holds a bundle already"):
        travel.unpack(tmp_path / "out", run)


def test_curves_are_those_of_the_board(run: Path, tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(run / "tensorboard" / "image")) as writer:
        writer.add_scalar("train/held_out_loss", 0.5, 3)
    travel.collect(run, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "curves.json").read_text()) == {
        "image": {"train/held_out_loss": [[3, 0.5]]}
    }
