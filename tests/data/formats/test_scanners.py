"""OpenSlide's formats, at a Leica slide of two regions that is written here."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from diffgen.data.formats.base import LeftOut
from diffgen.data.formats.scanners import parts_of_slide
from diffgen.data.slides import header, open_slide
from tests.data.pictures import tissue

MPP = 0.5
CANVAS = (2000, 1000)
Region = tuple[int, int, NDArray[np.uint8]]


def scn_image(x: int, y: int, width: int, height: int, pixels: tuple[int, int], ifd: int) -> str:
    nm = int(1000 * MPP)
    return (
        f'<image><device model="m" version="1"/><pixels sizeX="{pixels[0]}" sizeY="{pixels[1]}">'
        f'<dimension sizeX="{pixels[0]}" sizeY="{pixels[1]}" r="0" ifd="{ifd}"/></pixels>'
        f'<view sizeX="{width * nm}" sizeY="{height * nm}" offsetX="{x * nm}" offsetY="{y * nm}"/>'
        "<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>"
        "<illuminationSettings><illuminationSource>brightfield</illuminationSource></illuminationSettings>"
        "</scanSettings></image>"
    )


def save_scn(path: Path, regions: list[Region]) -> Path:
    """A Leica SCN: a macro picture of the whole canvas, and regions of it at full resolution."""
    images = scn_image(0, 0, *CANVAS, (100, 50), 0)
    for ifd, (x, y, picture) in enumerate(regions, start=1):
        height, width = picture.shape[:2]
        images += scn_image(x, y, width, height, (width, height), ifd)
    width, height = (int(1000 * MPP * side) for side in CANVAS)
    xml = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection sizeX="{width}" sizeY="{height}">{images}</collection></scn>'
    )
    common = {"photometric": "rgb", "tile": (64, 64), "metadata": None, "compression": "zlib"}
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(np.full((50, 100, 3), 250, np.uint8), description=xml, **common)
        for _, _, picture in regions:
            tiff.write(picture, resolution=(1e4 / MPP, 1e4 / MPP), resolutionunit="CENTIMETER", **common)
    return path


@pytest.fixture
def scn(tmp_path: Path) -> tuple[str, list[Region]]:
    regions = [(100, 200, tissue(400, 300)), (900, 500, tissue(300, 300, seed=1))]
    return str(save_scn(tmp_path / "a.scn", regions)), regions


def test_two_regions_are_one_slide_with_glass_between_them(scn: tuple[str, list[Region]]) -> None:
    path, regions = scn
    slide, assumed = open_slide(path)
    assert not assumed
    assert slide.size(MPP) == CANVAS
    for x, y, picture in regions:
        height, width = picture.shape[:2]
        np.testing.assert_array_equal(slide.read(x, y, width, height, MPP), picture)
    whole = slide.read(0, 0, *CANVAS, MPP).copy()
    for x, y, picture in regions:
        whole[y : y + picture.shape[0], x : x + picture.shape[1]] = 255
    assert (whole == 255).all()


def test_the_scanned_part_is_known_to_slide_and_header(scn: tuple[str, list[Region]]) -> None:
    slide, _ = open_slide(scn[0])
    assert slide.offset == (100, 200)
    assert slide.bounds == (100, 200, 1100, 600)
    said = header(scn[0])
    assert (said.format, said.size, said.offset, said.extent) == (
        "Leica SCN",
        CANVAS,
        (100, 200),
        (1100, 600),
    )
    assert said.mpp == pytest.approx((MPP, MPP))
    assert said.problem is None


def test_what_a_user_says_wins_over_the_scanner(scn: tuple[str, list[Region]]) -> None:
    slide, assumed = open_slide(scn[0], 1.0, override=0.25)
    assert not assumed
    assert slide.mpp == (0.25, 0.25)


def test_a_slide_that_failed_once_is_read_when_it_is_sound(
    scn: tuple[str, list[Region]], tmp_path: Path
) -> None:
    """OpenSlide keeps its first error for ever."""
    whole = Path(scn[0]).read_bytes()
    path = tmp_path / "b.scn"
    damaged = bytearray(whole)
    with tifffile.TiffFile(scn[0]) as tiff:
        page = tiff.pages[1]
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            damaged[offset : offset + count] = b"\xff" * count
    path.write_bytes(damaged)
    slide, _ = open_slide(str(path))
    with pytest.raises(LeftOut, match="cannot be read"):
        slide.read(100, 200, 100, 100, MPP)
    path.write_bytes(whole)
    again, _ = open_slide(str(path))
    np.testing.assert_array_equal(again.read(100, 200, 100, 100, MPP), scn[1][0][2][:100, :100])


def test_what_an_index_names_belongs_to_it(tmp_path: Path) -> None:
    for name in ("a.jpg", "a(1,0).jpg", "other.jpg"):
        (tmp_path / name).write_bytes(b"x")
    index = tmp_path / "a.vms"
    index.write_text(
        "[Virtual Microscope Specimen]\nImageFile=a.jpg\nImageFile(1,0)=a(1,0).jpg\nMapFile=gone\n"
    )
    assert parts_of_slide(str(index)) == {str(tmp_path / "a.jpg"), str(tmp_path / "a(1,0).jpg")}
    assert parts_of_slide(str(tmp_path / "a.jpg")) == set()
