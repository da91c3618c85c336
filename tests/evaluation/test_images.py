"""Sets of images: what a region is, and what is said of sets that are not whole."""

import io
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from diffgen.errors import UserError
from diffgen.evaluation import files
from diffgen.evaluation.images import RegionSet, check_alike, open_images
from diffgen.labels import Labels
from diffgen.shards import tar_writer


def png(array: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(array).save(sink, "PNG")
    return sink.getvalue()


def picture(number: int, height: int = 64, width: int = 96) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (height, width, 3), np.uint8), rng.integers(0, 3, (height, width), np.uint8)


def shards(folder: Path, count: int = 12, names: tuple[str, ...] = ("unknown", "a", "b")) -> Path:
    folder.mkdir()
    with (folder / "shard-000000.tar").open("wb") as sink, tar_writer(sink) as tar:
        for k in range(count):
            image, mask = picture(k)
            tar.write(
                {"__key__": f"{k:09d}", "png": png(image), "mask.png": png(mask), "json": b'{"mpp": 0.5}'}
            )
    Labels(names).save(folder / "labels.json")
    return folder


def loose(folder: Path, count: int = 3) -> Path:
    folder.mkdir()
    for k in range(count):
        image, mask = picture(k)
        (folder / f"{k}.png").write_bytes(png(image))
        (folder / f"{k}_mask.png").write_bytes(png(mask))
    return folder


@pytest.mark.parametrize("make", [shards, loose])
def test_regions_are_the_pixels_of_their_images(make: Callable[..., Path], tmp_path: Path) -> None:
    images = open_images(str(make(tmp_path / "set", 3)))
    assert images.largest == 64
    regions = images.regions(32)
    assert len(regions) == 3 * 2 * 3
    assert len({(r.image, r.y, r.x) for r in regions}) == len(regions)
    for region in regions:
        whole = picture(int(Path(region.image).stem))
        got = images.read(region)
        assert np.array_equal(got[0], whole[0][region.box])
        assert np.array_equal(got[1], whole[1][region.box])


@pytest.mark.parametrize("make", [shards, loose])
def test_a_picture_may_be_larger_than_pil_s_limit(
    make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path / "set", 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # twice that is refused
    images = open_images(str(folder))
    assert np.array_equal(images.read(images.regions(64)[0])[0], picture(0)[0][:, :64])


def test_a_bar_counts_the_images_while_their_sizes_are_read(tmp_path: Path) -> None:
    folder, said = loose(tmp_path / "set"), io.StringIO()
    open_images(str(folder), console=Console(file=said, force_terminal=True, width=120))
    assert "sizes" in said.getvalue()
    assert "3/3" in said.getvalue()


def test_a_repeated_key_among_many_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting each key among all took minutes for 100,000 samples, and takes half of one for 40,000."""
    keys = [f"{k:05d}" for k in range(40_000)] + ["39999"]
    piece = files.ByteRange("a", 0, 1)
    monkeypatch.setattr(files, "_images", lambda *_: [(key, key, piece, None, None) for key in keys])
    start = time.perf_counter()
    with pytest.raises(UserError, match="two samples have the key 39999"):
        open_images(str(loose(tmp_path / "set")))
    assert time.perf_counter() - start < 10


def test_a_set_travels_and_keeps_its_digest(tmp_path: Path) -> None:
    images = open_images(str(shards(tmp_path / "set")))
    there = pickle.loads(pickle.dumps(images))
    assert there.digest == images.digest
    assert np.array_equal(there.read(there.regions(64)[3])[0], images.read(images.regions(64)[3])[0])
    with (tmp_path / "set" / "shard-000000.tar").open("r+b") as file:
        file.seek(700)
        file.write(b"\x01")
    assert open_images(str(tmp_path / "set")).digest != images.digest


def test_drawn_crops_are_of_all_sources_and_of_the_seed(tmp_path: Path) -> None:
    images = open_images(str(shards(tmp_path / "set")))
    crops = RegionSet(images, tuple(images.regions(32)))
    few = crops.drawn(12)
    assert len({region.source for region in few.regions}) == 12
    assert few == crops.drawn(12)
    assert few != crops.drawn(12, seed=1)
    assert crops.drawn(10_000) is crops
    assert len(set(crops.groups)) == 12


def test_few_sources_are_divided(tmp_path: Path) -> None:
    images = open_images(str(loose(tmp_path / "set", 2)))
    crops = RegionSet(images, tuple(images.regions(8)))
    assert len(set(crops.groups)) == 2 * 2 * 3
    assert all(
        len({crops.regions[i].source for i in np.flatnonzero(crops.groups == g)}) == 1 for g in crops.groups
    )


def cut_short(folder: Path) -> None:
    path = folder / "shard-000000.tar"
    path.write_bytes(path.read_bytes()[:-15000])


def unfinished(folder: Path) -> None:
    (folder / "run.json").write_text("{}")


def emptied(folder: Path) -> None:
    (folder / "shard-000000.tar").unlink()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (cut_short, "shard-000000.tar is cut short"),
        (unfinished, "is not finished"),
        (emptied, "no shards"),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_a_set_that_is_not_whole_is_named(harm: Callable[[Path], Any], words: str, tmp_path: Path) -> None:
    folder = shards(tmp_path / "set")
    harm(folder)
    with pytest.raises(UserError, match=words) as raised:
        open_images(str(folder))
    assert str(folder) in str(raised.value)


def test_a_folder_as_it_is_says_what_of_it_is_not_used(tmp_path: Path) -> None:
    folder = loose(tmp_path / "set", 4)
    (folder / "1_mask.png").rename(folder / "1-labels.PNG")
    (folder / "2_mask.png").unlink()
    (folder / "3.png").write_bytes(b"")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "9.png").write_bytes(b"")
    console = Console(record=True, width=200, file=io.StringIO())
    images = open_images(str(folder), console=console)
    regions = images.regions(images.largest)
    assert {region.image: region.labelled for region in regions} == {
        "0.png": True,
        "1.png": True,
        "2.png": False,
    }
    said = console.export_text()
    assert "3.png is not a readable picture" in said
    assert "1 without a label map: 2.png" in said


def test_one_small_image_does_not_decide_the_side(tmp_path: Path) -> None:
    folder = loose(tmp_path / "set", 12)
    usual = open_images(str(folder)).largest
    Image.new("RGB", (4, 4)).save(folder / "small.png")
    images = open_images(str(folder))
    assert images.largest == usual
    assert images.smaller_than(usual) == 1


def test_other_classes_and_scales_are_refused(tmp_path: Path) -> None:
    one, other = (open_images(str(shards(tmp_path / n, 2, ("unknown", n, "b")))) for n in ("x", "y"))
    with pytest.raises(UserError, match="other classes"):
        check_alike(one, other)
    other.labels, other.mpp = one.labels, 0.25
    with pytest.raises(UserError, match=r"0\.25 µm per pixel"):
        check_alike(one, other)


def test_a_class_id_without_a_name_is_refused(tmp_path: Path) -> None:
    images = open_images(str(shards(tmp_path / "set", 1, ("unknown", "a"))))
    with pytest.raises(UserError, match="class id 2"):
        images.label_map(images.regions(64)[0])


def test_covering_regions_leave_no_pixel_out(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((100, 65, 3), np.uint8)).save(tmp_path / "one.png")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "two.png")
    Image.fromarray(np.zeros((20, 64, 3), np.uint8)).save(tmp_path / "small.png")
    found = open_images(str(tmp_path)).covering(32)
    seen = {"one": np.zeros((100, 65), int), "two": np.zeros((64, 64), int)}
    for region in found.regions:
        seen[region.image.removesuffix(".png")][region.box] += 1
    assert seen["one"].all()
    assert (seen["two"] == 1).all(), "where regions fit, none overlaps"
    assert all(region.image != "small.png" for region in found.regions)
