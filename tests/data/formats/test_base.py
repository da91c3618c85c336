import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from diffgen.data.formats import base
from diffgen.data.formats.base import LeftOut, failing_as_left_out, on_white
from diffgen.data.formats.tiff import open_tiff
from tests.data.pictures import tissue


@pytest.mark.parametrize("options", [{"tile": (64, 64)}, {"rowsperstrip": 16, "compression": "zlib"}])
def test_reading_in_parts_changes_no_pixel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", tissue(900, 700), photometric="rgb", **options)
    whole = np.asarray(open_tiff(str(tmp_path / "a.tif"), False).take((0, 0, 900, 700), (300, 233)))
    monkeypatch.setattr(base, "MAX_READ", 900 * 100)
    parts = np.asarray(open_tiff(str(tmp_path / "a.tif"), False).take((0, 0, 900, 700), (300, 233)))
    assert np.abs(whole.astype(int) - parts).max() <= 1


@pytest.mark.parametrize(
    "error",
    [OSError("x"), ValueError("x"), RuntimeError("x"), struct.error("x"), IndexError("x"), EOFError("x")],
)
def test_what_a_reader_raises_is_left_out(error: Exception) -> None:
    with pytest.raises(LeftOut, match=r"cannot be read \(x\)"), failing_as_left_out():
        raise error


def test_a_mistake_of_ours_is_none_of_the_file() -> None:
    with pytest.raises(AssertionError), failing_as_left_out():
        raise AssertionError("ours")


def test_opaque_images_are_only_converted_and_transparent_ones_laid_on_white() -> None:
    picture = tissue(40, 30)
    rgba = np.dstack([picture, np.full((30, 40), 255, np.uint8)])
    np.testing.assert_array_equal(on_white(Image.fromarray(rgba)), picture)
    rgba[:, :20, 3] = 0
    assert (np.asarray(on_white(Image.fromarray(rgba)))[:, :20] == 255).all()
    with pytest.raises(ValueError, match="8-bit"):
        on_white(Image.fromarray(np.zeros((4, 4), np.uint16)))
