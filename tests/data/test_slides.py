from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from diffgen.data.formats import scanners
from diffgen.data.formats.base import LeftOut
from diffgen.data.formats.scale import NO_MPP, plausible
from diffgen.data.slides import header, open_slide
from tests.data.pictures import save_image, save_slide, tissue


def test_a_slide_says_its_scale_and_is_read_at_another(tmp_path: Path) -> None:
    picture = tissue(512, 384)
    slide, assumed = open_slide(str(save_slide(tmp_path / "s.tiff", picture, 0.25)))
    assert not assumed
    assert slide.mpp == pytest.approx((0.25, 0.25))
    assert slide.size(0.5) == (256, 192)
    half = np.asarray(Image.fromarray(picture).reduce(2)).astype(int)
    assert np.abs(slide.read(64, 32, 128, 96, 0.5) - half[32:128, 64:192]).mean() < 3
    np.testing.assert_array_equal(slide.read(10, 20, 50, 40, 0.25), picture[20:60, 10:60])


def test_a_pixel_does_not_depend_on_the_region(tmp_path: Path) -> None:
    slide, _ = open_slide(str(save_slide(tmp_path / "s.tiff", tissue(700, 500), 0.3)))
    whole = slide.read(0, 0, *slide.size(0.5), 0.5).astype(int)
    part = slide.read(101, 57, 120, 90, 0.5)
    assert np.abs(part - whole[57:147, 101:221]).max() <= 1


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_a_file_without_scale_needs_one_said(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".png":
        save_image(path, tissue(200, 200))
    else:
        save_slide(path, tissue(200, 200), None)
    with pytest.raises(LeftOut, match=NO_MPP):
        open_slide(str(path))
    slide, assumed = open_slide(str(path), 0.5)
    assert assumed
    assert slide.size(1.0) == (100, 100)


def test_resolutions_for_printing_are_none() -> None:
    assert plausible(352.8, 352.8) is None  # 72 dpi
    assert plausible(0.25, 0.25) == (0.25, 0.25)


def test_a_tiff_in_strips_is_read_without_openslide(tmp_path: Path) -> None:
    picture = tissue(200, 150)
    tifffile.imwrite(
        tmp_path / "s.tif", picture, photometric="rgb", resolution=(2e4, 2e4), resolutionunit="CENTIMETER"
    )
    slide, _ = open_slide(str(tmp_path / "s.tif"))
    assert slide.mpp == pytest.approx((0.5, 0.5))
    np.testing.assert_array_equal(slide.read(3, 5, 50, 40, 0.5), picture[5:45, 3:53])


def test_transparent_is_white(tmp_path: Path) -> None:
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[:, 32:] = (200, 20, 90, 255)
    slide, _ = open_slide(str(save_image(tmp_path / "a.png", rgba)), 0.5)
    picture = slide.read(0, 0, 64, 64, 0.5)
    assert (picture[:, :30] == 255).all()
    assert (picture[:, 34:] == (200, 20, 90)).all()


def test_without_openslide_pictures_and_tiffs_are_read_and_slides_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanners, "openslide", None)
    assert open_slide(str(save_image(tmp_path / "a.png", tissue(64, 64))), 0.5)[0].size(0.5) == (64, 64)
    picture = tissue(200, 200)
    slide, _ = open_slide(str(save_slide(tmp_path / "s.svs", picture, 0.5)))
    np.testing.assert_array_equal(slide.read(0, 0, 200, 200, 0.5), picture)
    (tmp_path / "s.mrxs").write_bytes(b"\xff\xd8\xff and more")
    with pytest.raises(LeftOut, match="OpenSlide is not installed"):
        open_slide(str(tmp_path / "s.mrxs"))


@pytest.mark.parametrize("name", ["a.svs", "a.png", "a.tif", "cut.png", "cut.jpg"])
def test_a_corrupt_file_is_left_out(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.startswith("cut"):
        save_image(path, tissue(200, 200))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_bytes(b"not a picture at all" * 30)
    with pytest.raises(LeftOut, match="cannot be read"):
        open_slide(str(path), 0.5)[0].read(0, 0, 200, 200, 0.5)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_a_header_says_what_opening_gives(tmp_path: Path, name: str) -> None:
    picture = tissue(200, 160)
    if name == "a.tif":
        save_slide(tmp_path / name, picture, 0.5)
    else:
        Image.fromarray(picture).save(tmp_path / name, dpi=(50_800, 50_800))
    said, (slide, _) = header(str(tmp_path / name)), open_slide(str(tmp_path / name))
    assert said.size == slide.pixels.size == (200, 160)
    assert said.mpp == slide.mpp == pytest.approx((0.5, 0.5), rel=1e-3)
    assert slide.bounds == (0, 0, 200, 160)


def test_suffixes_lie(tmp_path: Path) -> None:
    picture = tissue(128, 96)
    save_slide(tmp_path / "slide.tiff", picture, 0.5).rename(tmp_path / "slide.png")
    save_image(tmp_path / "a.png", picture).rename(tmp_path / "a.svs")
    for name in ("slide.png", "a.svs"):
        slide, _ = open_slide(str(tmp_path / name), 0.5)
        np.testing.assert_array_equal(slide.read(0, 0, 128, 96, 0.5), picture)


def test_a_grey_picture_is_left_out_and_what_has_two_scales_needs_one_said(tmp_path: Path) -> None:
    Image.fromarray(tissue(64, 64)).convert("L").save(tmp_path / "a.png")
    with pytest.raises(LeftOut, match="one channel"):
        open_slide(str(tmp_path / "a.png"), 0.5)
    tags = {"resolution": (2e4, 4e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "b.tif", tissue(64, 64), photometric="rgb", **tags)
    with pytest.raises(LeftOut, match=r"0\.5 µm per pixel across and 0\.25 down.*--mpp-override"):
        open_slide(str(tmp_path / "b.tif"), 1.0)
    slide, assumed = open_slide(str(tmp_path / "b.tif"), 1.0, override=0.5)
    assert (slide.mpp, assumed) == ((0.5, 0.5), False)


@pytest.mark.parametrize("name", ["tiles.tif", "strips.tif", "a.png"])
def test_threads_read_one_file_at_once(tmp_path: Path, name: str) -> None:
    picture = tissue(600, 500)
    if name == "a.png":
        save_image(tmp_path / name, picture)
    else:
        layout = {"tile": (64, 64)} if name == "tiles.tif" else {"rowsperstrip": 16}
        tifffile.imwrite(tmp_path / name, picture, photometric="rgb", compression="lzw", **layout)
    slide, _ = open_slide(str(tmp_path / name), 0.5)
    boxes = [(x, y, 90, 70) for x in range(0, 500, 37) for y in range(0, 420, 41)]
    with ThreadPoolExecutor(8) as pool:
        seen = pool.map(lambda box: slide.read(*box, 0.5), boxes)
        for (x, y, width, height), part in zip(boxes, seen, strict=True):
            np.testing.assert_array_equal(part, picture[y : y + height, x : x + width])
