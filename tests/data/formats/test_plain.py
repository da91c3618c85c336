import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffgen.data.formats.plain import header, open_plain
from tests.data.pictures import tissue


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.bmp", "BMP"), ("a.webp", "WebP"), ("a.jp2", "JPEG 2000")],
)
def test_a_header_without_a_pixel(tmp_path: Path, name: str, kind: str) -> None:
    picture = tissue(200, 160)
    Image.fromarray(picture).save(tmp_path / name)
    said = header(str(tmp_path / name))
    assert (said.format, said.size, said.channels, said.problem) == (kind, (200, 160), 3, None)
    assert said.memory >= 4 * 200 * 160
    seen = np.asarray(open_plain(str(tmp_path / name), False).image).astype(int)
    assert np.abs(seen - picture).mean() < 6
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[: 4 * 1024])
    assert header(str(tmp_path / name)).size == (200, 160)


@pytest.mark.parametrize("mode", ["L", "1", "LA", "I;16"])
def test_one_channel_is_no_picture(tmp_path: Path, mode: str) -> None:
    array = np.zeros((40, 50), np.uint16 if mode == "I;16" else np.uint8)
    image = Image.fromarray(array) if mode == "I;16" else Image.fromarray(array).convert(mode)
    image.save(tmp_path / "a.png")
    assert "one channel" in (header(str(tmp_path / "a.png")).problem or "")


def test_a_palette_is_colours(tmp_path: Path) -> None:
    picture = tissue(64, 64)
    Image.fromarray(picture).quantize(256).save(tmp_path / "a.png")
    assert (header(str(tmp_path / "a.png")).problem, header(str(tmp_path / "a.png")).channels) == (None, 3)
    seen = np.asarray(open_plain(str(tmp_path / "a.png"), False).image).astype(int)
    assert np.abs(seen - picture).mean() < 8


def test_a_picture_of_a_slides_size_is_to_be_converted(tmp_path: Path) -> None:
    Image.fromarray(tissue(64, 64)).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:24] = struct.pack(">II", 60_000, 45_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "a.png").write_bytes(data)
    said = header(str(tmp_path / "a.png"))
    assert said.size == (60_000, 45_000)
    assert "vips tiffsave" in (said.problem or "")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_a_picture_is_read_as_viewers_show_it(tmp_path: Path, name: str) -> None:
    picture, exif = tissue(96, 64), Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(picture).save(tmp_path / name, exif=exif, quality=95)
    said = header(str(tmp_path / name))
    assert (said.size, said.notes) == ((64, 96), ("turned as its EXIF orientation says",))
    seen = np.asarray(open_plain(str(tmp_path / name), False).image).astype(int)
    assert np.abs(seen - np.rot90(picture, -1)).mean() < 6
