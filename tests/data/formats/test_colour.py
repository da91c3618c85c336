from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from diffgen.data.formats.colour import DAMAGED, describe, to_srgb
from diffgen.data.slides import header, open_slide
from tests.data.pictures import tissue

SHARED = Path(__file__).parents[3] / "../shared/odd/13_unseen_kinds/boxes_0.dcm"


def other_profile() -> bytes:
    """An RGB profile that is not sRGB: red and blue primaries swapped, by exchanging their tags."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = data.index(b"rXYZ"), data.index(b"bXYZ")
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    name = "sRGB".encode("utf-16-be")
    return bytes(data).replace(name, "odd!".encode("utf-16-be")).replace(b"sRGB built", b"odd! built")


def test_a_profile_is_applied_to_every_format_and_named(tmp_path: Path) -> None:
    picture, profile = tissue(128, 96), other_profile()
    expected = np.asarray(to_srgb(Image.fromarray(picture), profile)).astype(int)
    assert np.abs(expected - picture).mean() > 5
    Image.fromarray(picture).save(tmp_path / "a.png", icc_profile=profile)
    tifffile.imwrite(tmp_path / "a.tif", picture, photometric="rgb", iccprofile=profile)
    Image.fromarray(picture).save(tmp_path / "a.jpg", icc_profile=profile, quality=100, subsampling=0)
    for name, tolerance in (("a.png", 0.0), ("a.tif", 0.0), ("a.jpg", 2.0)):
        path = str(tmp_path / name)
        assert header(path).icc == describe(profile)
        seen = open_slide(path, 0.5, icc=True)[0].read(0, 0, 128, 96, 0.5)
        assert np.abs(seen - expected).mean() <= tolerance
        assert (
            np.abs(open_slide(path, 0.5)[0].read(0, 0, 128, 96, 0.5).astype(int) - picture).mean()
            <= tolerance
        )


def test_srgb_is_left_as_it_is_and_a_damaged_profile_is_ignored() -> None:
    image = Image.fromarray(tissue(32, 32))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"no profile", b""):
        np.testing.assert_array_equal(to_srgb(image, profile), image)
    assert describe(b"no profile") == DAMAGED
    assert "sRGB" in describe(srgb)


def test_cmyk_becomes_rgb_also_without_a_profile() -> None:
    picture = tissue(32, 32)
    np.testing.assert_array_equal(to_srgb(Image.fromarray(picture).convert("CMYK"), b""), picture)


@pytest.mark.skipif(not SHARED.exists(), reason="needs the small DICOM slide in ../shared/odd")
def test_openslide_gives_the_profile_of_a_slide() -> None:
    assert header(str(SHARED)).icc == "uRGB"
    slide, _ = open_slide(str(SHARED), icc=True)
    assert slide.read(0, 0, 16, 16, slide.mpp[0]).shape == (16, 16, 3)
