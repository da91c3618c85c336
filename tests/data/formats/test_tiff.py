from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from diffgen.data.formats import tiff
from diffgen.data.formats.base import LeftOut, failing_as_left_out
from diffgen.data.formats.pages import Bytes
from diffgen.data.formats.tiff import TiffPixels, header, open_tiff
from tests.data.pictures import tissue

Rgb = NDArray[np.uint8]
Write = Callable[[Path, Rgb], Any]


def read(path: Path, size: tuple[int, int]) -> NDArray[np.int16]:
    return np.asarray(open_tiff(str(path), False).take((0, 0, *size), size)).astype(np.int16)


def _pages(rgb: Rgb) -> Rgb:
    return np.ascontiguousarray(rgb.transpose(2, 0, 1))


def _axes(axes: str, **options: Any) -> Write:
    """Colours along C, two of everything else: what is asked for is the first."""

    def write(path: Path, rgb: Rgb) -> None:
        picture = _pages(rgb)  # C Y X
        for number, axis in enumerate(axes[:-2]):
            if axis != "C":
                other = np.stack([picture, 255 - picture], axis=number) if number < picture.ndim - 2 else None
                picture = (
                    np.stack([picture, 255 - picture], axis=picture.ndim - 2) if other is None else other
                )
        metadata = {"axes": axes, **options.pop("metadata", {})}
        tifffile.imwrite(path, picture, photometric="minisblack", metadata=metadata, **options)

    return write


def _samples(photometric: str = "rgb", **options: Any) -> Write:
    return lambda path, rgb: tifffile.imwrite(path, rgb, photometric=photometric, **options)


def _pillow(mode: str, **options: Any) -> Write:
    return lambda path, rgb: Image.fromarray(rgb).convert(mode).save(path, **options)


def _pyramid(path: Path, rgb: Rgb) -> None:
    """As Bio-Formats and QuPath write it: colours in pages, smaller levels in SubIFDs."""
    with tifffile.TiffWriter(path, ome=True, bigtiff=True) as writer:
        options: dict[str, Any] = {"photometric": "minisblack", "tile": (64, 64), "compression": "lzw"}
        writer.write(_pages(rgb), subifds=1, metadata={"axes": "CYX"}, **options)
        writer.write(_pages(rgb)[:, ::2, ::2].copy(), subfiletype=1, **options)


def _label_first(path: Path, rgb: Rgb) -> None:
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(rgb[:40, :50], photometric="rgb", metadata={"axes": "YXS"})
        writer.write(rgb, photometric="rgb", tile=(64, 64), metadata={"axes": "YXS"})


def _without_pages_of_its_own(path: Path, rgb: Rgb) -> None:
    """ImageJ writes one page and the pixels of all others behind it, once they exceed 4 GB."""
    _axes("ZCYX", imagej=True)(path, rgb)
    with tifffile.TiffFile(path, mode="r+b") as written:
        first = written.pages.first
        written.filehandle.seek(first.offset + 2 + 12 * len(first.tags))
        written.filehandle.write(b"\0\0\0\0")  # no next page


EXACT: dict[str, Write] = {
    "strips.ome.tif": _axes("CYX"),
    "tiles.ome.tif": _axes("CYX", tile=(64, 64)),
    "lzw.ome.tif": _axes("CYX", tile=(64, 64), compression="lzw"),
    "zcyx.ome.tif": _axes("ZCYX", compression="zlib"),
    "czyx.ome.tif": _axes("CZYX", tile=(64, 64)),
    "bgr.ome.tif": lambda path, rgb: _axes("CYX", metadata={"Channel": {"Name": ["Blue", "Green", "Red"]}})(
        path, rgb[..., ::-1]
    ),
    "yxs.ome.tif": _samples(tile=(64, 64), metadata={"axes": "YXS"}, ome=True),
    "imagej.tif": _axes("ZCYX", imagej=True),
    "imagej_large.tif": _without_pages_of_its_own,
    "pyramid.ome.tif": _pyramid,
    "label_first.ome.tif": _label_first,
    "planar_strips.tif": lambda path, rgb: _samples(planarconfig="separate")(path, _pages(rgb)),
    "planar_tiles.tif": lambda path, rgb: _samples(planarconfig="separate", tile=(64, 64))(path, _pages(rgb)),
    "planar_zstd.tif": lambda path, rgb: _samples(planarconfig="separate", tile=(64, 64), compression="zstd")(
        path, _pages(rgb)
    ),
    "big_endian.tif": _samples(byteorder=">", rowsperstrip=16),
    "bigtiff.tif": _samples(bigtiff=True, compression="zlib", rowsperstrip=7),
    "predictor.tif": _samples(compression="lzw", predictor=True),
    "jpeg2000.tif": _samples(compression="jpeg2000", tile=(64, 64)),
    "jpegxl.tif": _samples(compression="jpegxl", compressionargs={"level": 101}, tile=(64, 64)),
    "webp.tif": _samples(compression="webp", compressionargs={"level": 101}, tile=(64, 64)),
    "white_is_zero.tif": lambda path, rgb: tifffile.imwrite(
        path, 255 - _pages(rgb), photometric="miniswhite", metadata={"axes": "CYX"}, ome=True
    ),
    "pil_lzw.tif": _pillow("RGB", compression="tiff_lzw"),
    "opaque.tif": _pillow("RGBA"),
    "cmyk.tif": lambda path, rgb: Image.fromarray(rgb).convert("CMYK").save(path),
}


@pytest.mark.parametrize("name", EXACT)
def test_colours_are_right_whatever_the_layout(tmp_path: Path, name: str) -> None:
    rgb = tissue(200, 150)
    EXACT[name](tmp_path / name, rgb)
    np.testing.assert_array_equal(read(tmp_path / name, (200, 150)), rgb)
    said = header(str(tmp_path / name))
    assert (said.size, said.channels, said.problem) == ((200, 150), 3, None)


NEAR: dict[str, Write] = {
    "jpeg.tif": _samples(compression="jpeg", compressionargs={"level": 98}, tile=(64, 64)),
    "jpeg_rgb.tif": _pillow("RGB", compression="jpeg", quality=98),
    "palette.tif": lambda path, rgb: Image.fromarray(rgb).quantize(256).save(path),
    "palette_tiles.tif": lambda path, rgb: _palette_in_tiles(path, rgb),
    "lab.tif": _pillow("LAB"),
    "ycbcr.tif": _pillow("YCbCr"),
}


def _palette_in_tiles(path: Path, rgb: Rgb) -> None:
    quantized = Image.fromarray(rgb).quantize(256)
    colours = np.zeros((3, 256), np.uint16)
    palette = np.array(quantized.getpalette(), np.uint16).reshape(-1, 3).T
    colours[:, : palette.shape[1]] = palette * 257
    tifffile.imwrite(path, np.asarray(quantized), photometric="palette", colormap=colours, tile=(64, 64))


@pytest.mark.parametrize("name", NEAR)
def test_lossy_kinds_are_near(tmp_path: Path, name: str) -> None:
    rgb = tissue(200, 150)
    if name == "lab.tif":
        from PIL import ImageCms

        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        converted = ImageCms.profileToProfile(Image.fromarray(rgb), srgb, lab, outputMode="LAB")
        assert converted is not None
        converted.save(tmp_path / name)
    else:
        NEAR[name](tmp_path / name, rgb)
    assert np.abs(read(tmp_path / name, (200, 150)) - rgb).mean() < 4


def test_transparent_is_white_also_where_it_is_multiplied(tmp_path: Path) -> None:
    rgb = tissue(96, 64)
    alpha = np.full((64, 96, 1), 255, np.uint8)
    alpha[:, :40] = 0
    seen = np.where(alpha > 0, rgb, 0).astype(np.uint8)
    for kind in ("unassalpha", "assocalpha", "unspecified"):
        rgba = np.concatenate([rgb if kind == "unassalpha" else seen, alpha], axis=2)
        path = tmp_path / f"{kind}.tif"
        tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=[kind], compression="zlib")
        expected = seen if kind == "unspecified" else np.where(alpha > 0, rgb, 255)
        np.testing.assert_array_equal(read(path, (96, 64)), expected)


LEFT_OUT: dict[str, tuple[NDArray[Any], dict[str, Any], str]] = {
    "grey": (np.zeros((64, 64), np.uint8), {}, "one channel"),
    "white_is_zero": (np.zeros((64, 64), np.uint8), {"photometric": "miniswhite"}, "one channel"),
    "three_unnamed_pages": (np.zeros((3, 64, 64), np.uint8), {"photometric": "minisblack"}, "3 pages"),
    "two": (np.zeros((2, 64, 64), np.uint8), {"metadata": {"axes": "CYX"}, "ome": True}, "2 channels"),
    "five": (np.zeros((5, 64, 64), np.uint8), {"metadata": {"axes": "CYX"}, "ome": True}, "5 channels"),
    "16": (np.zeros((64, 64, 3), np.uint16), {"photometric": "rgb"}, "uint16.*8 bits a channel"),
    "float": (np.zeros((64, 64, 3), np.float32), {"photometric": "rgb"}, "float32"),
    "dyes": (
        np.zeros((3, 64, 64), np.uint8),
        {
            "metadata": {
                "axes": "CYX",
                "Channel": {"Name": ["DAPI", "Cy3", "Cy5"], "Fluor": ["a", "b", "c"]},
            },
            "ome": True,
        },
        "DAPI, Cy3, Cy5",
    ),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_no_colour_picture_is_left_out_with_the_reason(tmp_path: Path, name: str) -> None:
    array, options, reason = LEFT_OUT[name]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, **({"photometric": "minisblack"} | options))
    assert header(str(path)).problem
    with pytest.raises(LeftOut, match=reason):
        open_tiff(str(path), False)


def test_the_first_of_several_focal_planes_is_noted_and_so_is_a_picture_beside(tmp_path: Path) -> None:
    _axes("ZCYX")(tmp_path / "z.ome.tif", tissue(64, 64))
    assert header(str(tmp_path / "z.ome.tif")).notes == ("of 2 focal planes the first is read",)
    with tifffile.TiffWriter(tmp_path / "two.ome.tif", ome=True) as writer:
        for size in (80, 90, 20):
            writer.write(tissue(size, 64), photometric="rgb", metadata={"axes": "YXS"})
    assert header(str(tmp_path / "two.ome.tif")).notes == ("of 2 pictures in it the 2. is read",)
    assert header(str(tmp_path / "two.ome.tif")).size == (90, 64)


def test_a_smaller_level_is_read_for_a_smaller_picture(tmp_path: Path) -> None:
    rgb = tissue(512, 384)
    with tifffile.TiffWriter(tmp_path / "p.tif") as writer:
        writer.write(rgb, photometric="rgb", tile=(64, 64), subifds=2)
        for step in (2, 4):
            half = np.asarray(Image.fromarray(rgb).reduce(step))
            writer.write(255 - half, photometric="rgb", tile=(64, 64), subfiletype=1)
    pixels = open_tiff(str(tmp_path / "p.tif"), False)
    full = np.asarray(pixels.take((0, 0, 512, 384), (300, 225))).astype(int)
    small = np.asarray(pixels.take((0, 0, 512, 384), (128, 96))).astype(int)
    assert np.abs(full - np.asarray(Image.fromarray(rgb).resize((300, 225)))).mean() < 5
    assert np.abs(255 - small - np.asarray(Image.fromarray(rgb).reduce(4))).mean() < 2


def test_a_part_needs_only_its_own_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (1024, 1024, 3), np.uint8)
    for name, options in {
        "raw": {},
        "strips": {"rowsperstrip": 16, "compression": "zlib"},
        "tiles": {"tile": (64, 64), "compression": "zlib"},
    }.items():
        tifffile.imwrite(tmp_path / name, rgb, photometric="rgb", **options)
        pixels = open_tiff(str(tmp_path / name), False)
        taken: list[int] = []
        monkeypatch.setattr(Bytes, "read", _counting(Bytes.read, taken))
        part = np.asarray(pixels.take((500, 500, 560, 560), (60, 60)))
        monkeypatch.undo()
        np.testing.assert_array_equal(part, rgb[500:560, 500:560])
        assert sum(taken) < rgb.nbytes / 8, name


def _counting(read: Any, taken: list[int]) -> Any:
    def counted(self: Bytes, offset: int, size: int) -> bytes:
        taken.append(size)
        data: bytes = read(self, offset, size)
        return data

    return counted


def test_a_file_that_is_too_large_at_once_is_left_out_before_it_is_decoded(tmp_path: Path) -> None:
    """One strip, compressed: to read a pixel of it is to decode it all."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(
            (b"" for _ in range(1)),
            shape=(30_000, 30_000, 3),
            dtype=np.uint8,
            photometric="rgb",
            compression="zlib",
            rowsperstrip=30_000,
        )
    said = header(str(tmp_path / "a.tif"))
    assert said.memory > 2 * 3 * 30_000**2
    with pytest.raises(LeftOut, match=r"takes 5\.\d GB to read; convert it.*vips tiffsave"):
        open_tiff(str(tmp_path / "a.tif"), False)


def test_a_tile_that_is_not_there_is_glass(tmp_path: Path) -> None:
    rgb = tissue(128, 64)

    def tiles() -> Any:
        yield rgb[:, :64].tobytes()
        yield b""

    tifffile.imwrite(
        tmp_path / "a.tif", tiles(), shape=rgb.shape, dtype=rgb.dtype, tile=(64, 64), photometric="rgb"
    )
    picture = read(tmp_path / "a.tif", (128, 64))
    np.testing.assert_array_equal(picture[:, :64], rgb[:, :64])
    assert (picture[:, 64:] == 255).all()


@pytest.mark.parametrize("options", [{}, {"compression": "lzw", "tile": (64, 64)}, {"compression": "zlib"}])
def test_a_file_that_ends_too_early_is_left_out(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, tissue(300, 300), photometric="rgb", **options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(LeftOut, match="cannot be read"), failing_as_left_out():
        open_tiff(str(path), False).take((0, 0, 300, 300), (300, 300))


def test_without_its_codec_pillow_reads_it_or_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgb = tissue(100, 80)
    tifffile.imwrite(tmp_path / "rgb.tif", rgb, photometric="rgb", compression="lzw")
    _axes("CYX", compression="lzw")(tmp_path / "pages.ome.tif", rgb)

    def no_codec(*_: object) -> None:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(TiffPixels, "region", no_codec)
    np.testing.assert_array_equal(read(tmp_path / "rgb.tif", (100, 80)), rgb)
    with pytest.raises(LeftOut, match="LZW, needs imagecodecs: pip install imagecodecs"):
        open_tiff(str(tmp_path / "pages.ome.tif"), False)


def test_what_begins_as_a_tiff() -> None:
    assert tiff.is_tiff(b"II*\0\x08\0\0\0")
    assert not tiff.is_tiff(b"\x89PNG\r\n")
