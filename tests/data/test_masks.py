"""Label maps beside pictures: values, places, objects."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from diffgen.data.formats.base import ImagePixels, LeftOut
from diffgen.data.masks import Placement, count_instances, load_mask, pixel_counts, placed, read_mask
from diffgen.data.slides import Slide


def slide(width: int, height: int, mpp: float = 0.25) -> Slide:
    return Slide(ImagePixels(Image.new("RGB", (width, height))), (mpp, mpp))


def discs(number: int, first: int = 1) -> np.ndarray:
    """A mask with an id for each of so many discs."""
    mask = np.zeros((20 * number, 20), np.uint16)
    y, x = np.mgrid[:20, :20]
    for n in range(number):
        mask[20 * n : 20 * n + 20][np.hypot(y - 10, x - 10) < 7] = first + n
    return mask


def test_masks_of_8_bits_16_bits_and_palettes(tmp_path: Path) -> None:
    ids = np.zeros((40, 60), np.uint8)
    ids[:, 30:] = 3
    palette = Image.fromarray(ids)
    palette.putpalette([i for n in range(256) for i in (255 - n, n, 128)])
    palette.save(tmp_path / "p.png")
    Image.fromarray(ids).save(tmp_path / "l.bmp")
    for name in ("p.png", "l.bmp"):
        np.testing.assert_array_equal(load_mask(str(tmp_path / name)), ids)
    Image.fromarray(ids.astype(np.uint16) * 1000).save(tmp_path / "i.tif")
    assert pixel_counts(load_mask(str(tmp_path / "i.tif"))) == {0: 1200, 3000: 1200}


def test_colours_need_a_table(tmp_path: Path) -> None:
    picture = np.zeros((9, 9, 3), np.uint8)
    picture[4] = (255, 0, 0)
    Image.fromarray(picture).save(tmp_path / "rgb.png")
    with pytest.raises(LeftOut, match=r"classes are colours \(#000000, #ff0000\).*prepare\.mask_colours"):
        load_mask(str(tmp_path / "rgb.png"))
    assert pixel_counts(load_mask(str(tmp_path / "rgb.png"), {"#ff0000": 2})) == {0: 72, 2: 9}


def test_masks_are_read_by_nearest() -> None:
    mask = np.kron(np.arange(1, 5, dtype=np.uint8).reshape(2, 2), np.ones((40, 40), np.uint8))
    np.testing.assert_array_equal(read_mask(slide(80, 80), mask, 0, 0, 40, 40, 0.5), mask[::2, ::2])
    part = mask[::2, ::2][5:35, 10:30]
    np.testing.assert_array_equal(read_mask(slide(80, 80), mask, 10, 5, 20, 30, 0.5), part)


@pytest.mark.parametrize(
    ("size", "place"),
    [
        ((80, 60), Placement(1)),
        ((40, 30), Placement(2)),
        ((20, 15), Placement(4)),
        ((79, 60), Placement(1, exact=False)),
        ((27, 20), Placement(3)),
    ],
)
def test_a_mask_has_the_images_size_or_a_whole_fraction_of_it(
    size: tuple[int, int], place: Placement
) -> None:
    assert placed(np.zeros(size[::-1], np.uint8), slide(80, 60)) == place


def test_another_size_is_refused_with_the_remedy() -> None:
    with pytest.raises(
        LeftOut, match="mask is 80x50, image is 80x60: a mask has the image's size, or a half"
    ):
        placed(np.zeros((50, 80), np.uint8), slide(80, 60))


def test_a_quarter_of_a_mask_is_the_mask_in_blocks() -> None:
    small = np.arange(12, dtype=np.uint8).reshape(3, 4)
    whole = np.kron(small, np.ones((20, 20), np.uint8))
    np.testing.assert_array_equal(read_mask(slide(80, 60), small, 0, 0, 80, 60, 0.25), whole)


def test_a_mask_of_the_scanned_part_lies_there() -> None:
    part = Slide(slide(100, 100).pixels, (0.25, 0.25), offset=(20, 30), extent=(40, 50))
    mask = np.full((50, 40), 7, np.uint8)
    assert placed(mask, part) == Placement(1, 20, 30)
    read = read_mask(part, mask, 0, 0, 100, 100, 0.25)
    assert (read[31:79, 21:59] == 7).all()
    assert read[:29].max() == read[:, :19].max() == read[82:].max() == read[:, 62:].max() == 0


def test_an_id_for_each_object_is_seen() -> None:
    mask = discs(10)
    assert count_instances(mask, pixel_counts(mask), {1}) == 10
    assert count_instances(mask, pixel_counts(mask), set(range(1, 11))) is None  # all have names
    two = discs(2)
    assert count_instances(two, pixel_counts(two), {1}) is None
    scattered = np.tile(discs(6), (2, 1))  # each id in two pieces: classes
    assert count_instances(scattered, pixel_counts(scattered), {1}) is None
    grey = discs(5, first=100)  # levels of something else
    assert count_instances(grey, pixel_counts(grey), {1}) is None


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_a_tiff_that_is_to_be_turned_is_read_turned(tmp_path: Path, compression: str | None) -> None:
    values = np.random.default_rng(0).integers(0, 9, (24, 40)).astype(np.uint8)
    tags = [(274, "H", 1, 6, True)]
    tifffile.imwrite(tmp_path / "a.tif", values, compression=compression, extratags=tags)
    assert np.array_equal(load_mask(str(tmp_path / "a.tif")), np.rot90(values, -1))
