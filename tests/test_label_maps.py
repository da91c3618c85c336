"""From a label map's file to the latent grid."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffgen.errors import UserError
from diffgen.label_maps import files, on_grid, read, values_of

IDS = np.arange(12, dtype=np.uint8).reshape(3, 4)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind)
    return file.getvalue()


def test_latent_grid_takes_block_centres() -> None:
    label_map = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert on_grid(label_map, 4).tolist() == [[18, 22], [50, 54]]
    assert np.array_equal(on_grid(label_map, 1), label_map)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_the_values_of_one_channel_are_the_ids(kind: str) -> None:
    assert np.array_equal(read(encoded(Image.fromarray(IDS), kind), "a"), IDS)


def test_the_indices_of_a_palette_are_the_ids() -> None:
    image = Image.fromarray(IDS)
    image.putpalette([255 - value for value in range(256) for _ in range(3)])
    assert np.array_equal(read(encoded(image), "a.png"), IDS)


def test_equal_channels_are_one_and_what_is_transparent_is_unknown() -> None:
    grey = np.dstack([IDS] * 3)
    assert np.array_equal(read(encoded(Image.fromarray(grey)), "a.png"), IDS)
    clear = np.dstack([grey, np.where(IDS == 5, 0, 255)]).astype(np.uint8)
    assert read(encoded(Image.fromarray(clear)), "a.png").tolist() == np.where(IDS == 5, 0, IDS).tolist()


def test_whole_numbers_may_be_stored_as_floats() -> None:
    assert np.array_equal(read(encoded(Image.fromarray(IDS.astype(np.float32)), "TIFF"), "a.tif"), IDS)


def test_colours_are_ids_by_a_table() -> None:
    colours = np.array([[(255, 0, 0), (0, 255, 0), (1, 2, 3)]], np.uint8)
    image = Image.fromarray(colours)
    assert values_of(image, {"#ff0000": 7, "#00ff00": 300}).tolist() == [[7, 300, 0]]
    with pytest.raises(ValueError, match=r"colours \(#00ff00, #010203, #ff0000\).*prepare\.mask_colours"):
        values_of(image)


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (Image.fromarray(np.full((2, 2), 256, np.uint16)), "a: a label map has class ids up to 255, not 256"),
        (Image.fromarray(np.full((2, 2), -1, np.int32)), "a: .*beyond 16 bits"),
        (Image.fromarray(np.full((2, 2), 0.5, np.float32)), "a: .*not whole numbers"),
    ],
)
def test_what_is_no_label_map_is_named(image: Image.Image, why: str) -> None:
    with pytest.raises(UserError, match=why):
        read(encoded(image, "TIFF"), "a")


def test_a_file_that_is_cut_off_is_named() -> None:
    with pytest.raises(UserError, match=r"a\.png: not a readable label map"):
        read(encoded(Image.new("L", (64, 64)))[:40], "a.png")


def test_one_as_large_as_a_slide_is_refused_before_it_is_read() -> None:
    image = Image.new("1", (1, 1))
    image._size = (60000, 45000)  # type: ignore[attr-defined]  # what the header says; it is never read
    with pytest.raises(ValueError, match=r"60000x45000 takes 2\.5 GB: save it at a half"):
        values_of(image)


def test_a_folder_of_label_maps_is_read_whatever_their_format(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".cache").mkdir()
    for name in ("a.png", "b.tif", "c.PNG", "sub/d.bmp", ".cache/e.png"):
        Image.fromarray(IDS).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("none")
    assert [path.name for path in files(tmp_path)] == ["a.png", "b.tif", "c.PNG", "d.bmp"]
    Image.fromarray(IDS).save(tmp_path / "z.jpg")
    with pytest.raises(UserError, match=r"z\.jpg: a label map in jpg has other ids"):
        files(tmp_path)


def test_beside_their_pictures_the_label_maps_are_found(tmp_path: Path) -> None:
    for name in ("a.png", "a_mask.png", "b.png"):
        Image.fromarray(IDS).save(tmp_path / name)
    assert [path.name for path in files(tmp_path)] == ["a_mask.png"]
    with pytest.raises(UserError, match="no label maps"):
        files(tmp_path / "nothing")
