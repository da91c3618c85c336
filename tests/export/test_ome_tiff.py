"""OME-TIFF: exact pixels, µm per pixel and pyramids, as tifffile and OpenSlide read them."""

import subprocess
import sys
import tracemalloc
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import openslide
import pytest
import tifffile
from rich.console import Console

from diffgen.export.export import export
from tests.export.shards import MPP, pair, write

QUIET = Console(quiet=True)
OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"


def to_tiff(shards: str, jpeg: int | None = None) -> Path:
    return Path(export(shards, "ome-tiff", None, jpeg, QUIET))


def test_pixels_scale_and_pyramid(tmp_path: Path) -> None:
    image, ids = pair(0, 1100, 1301)
    out = to_tiff(write(tmp_path / "out", [(image, ids), pair(1)]))
    assert out == tmp_path / "out-ome-tiff"
    names = {path.name for path in out.glob("*.tif")}
    assert names == {f"00000000{k}{end}.ome.tif" for k in (0, 1) for end in ("", "_mask")}
    for name, whole in (("000000000.ome.tif", image), ("000000000_mask.ome.tif", ids)):
        with tifffile.TiffFile(out / name) as tif:
            assert tif.is_ome
            (series,) = tif.series
            assert [level.shape[:2] for level in series.levels] == [(1100, 1301), (550, 651), (275, 326)]
            assert np.array_equal(series.levels[0].asarray(), whole)
            assert all(page.is_tiled for page in (tif.pages[0], *tif.pages[0].pages))
            pixels = ElementTree.fromstring(tif.ome_metadata).find(f"{OME}Image/{OME}Pixels")
            assert pixels is not None
            assert (pixels.get("PhysicalSizeX"), pixels.get("PhysicalSizeXUnit")) == (str(MPP), "µm")
            assert (pixels.get("SizeX"), pixels.get("SizeC")) == ("1301", "3" if whole.ndim == 3 else "1")
            assert len(pixels.findall(f"{OME}TiffData")) == 1  # SubIFDs are no planes
    with tifffile.TiffFile(out / "000000000.ome.tif") as tif:
        half = tif.series[0].levels[1].asarray()
    blocks = image[:, :1300].astype(float).reshape(550, 2, 650, 2, 3).mean((1, 3))
    assert np.abs(half[:, :650] - blocks).max() <= 0.5
    with tifffile.TiffFile(out / "000000000_mask.ome.tif") as tif:
        assert np.array_equal(tif.series[0].levels[1].asarray()[:, :650], ids[1::2, 1:1300:2])
        assert "2 no" in str(tif.ome_metadata)


def test_openslide_opens_it(tmp_path: Path) -> None:
    image, ids = pair(0, 600, 700)
    out = to_tiff(write(tmp_path / "out", [(image, ids)]))
    with openslide.OpenSlide(out / "000000000.ome.tif") as slide:
        assert slide.dimensions == (700, 600)
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_X]) == pytest.approx(MPP)
        read = np.asarray(slide.read_region((0, 0), 0, (700, 600)).convert("RGB"))
    assert np.array_equal(read, image)


def test_tiles_become_the_whole_image(tmp_path: Path) -> None:
    pairs = [pair(k, 96, 128) for k in range(2)]
    out = to_tiff(write(tmp_path / "out", pairs, tile=32, per_shard=5))
    for k, (image, ids) in enumerate(pairs):
        assert np.array_equal(tifffile.imread(out / f"00000000{k}.ome.tif"), image)
        assert np.array_equal(tifffile.imread(out / f"00000000{k}_mask.ome.tif"), ids)


def test_jpeg_is_small_and_near(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs", reason="JPEG in TIFF needs imagecodecs")
    y, x = np.mgrid[:600, :600]
    image = np.stack([y // 3, x // 3, (x + y) // 6], -1).astype(np.uint8)
    shards = write(tmp_path / "out", [(image, pair(0, 600, 600)[1])])
    out = to_tiff(shards, jpeg=90)
    with tifffile.TiffFile(out / "000000000.ome.tif") as tif:
        assert tif.pages[0].compression == tifffile.COMPRESSION.JPEG
        assert np.abs(tif.asarray().astype(int) - image).mean() < 3
    assert np.array_equal(tifffile.imread(out / "000000000_mask.ome.tif"), pair(0, 600, 600)[1])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    """8192² from tiles of 512²: 201 MB of pixels, of which rows of tiles and their halves are held."""
    side, tile = 8192, 512
    flat = [np.full((side, side, 3), 200, np.uint8), np.tile(np.arange(4, dtype=np.uint8), (side, side // 4))]
    flat[0][::7] = 30
    shards = write(tmp_path / "out", [(flat[0], flat[1])], tile=tile, per_shard=64)
    tracemalloc.start()
    out = to_tiff(shards)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80e6
    with tifffile.TiffFile(out / "000000000.ome.tif") as tif:
        assert len(tif.series[0].levels) == 5
        assert np.array_equal(tif.asarray(), flat[0])


def test_without_imagecodecs_only_jpeg_is_refused(tmp_path: Path) -> None:
    image, ids = pair(0, 600, 700)
    write(tmp_path / "out", [(image, ids)])
    code = f"""
import sys
sys.modules["imagecodecs"] = None
from rich.console import Console
from diffgen.errors import UserError
from diffgen.export.export import export
out = {str(tmp_path / "out")!r}
made = export(out, "ome-tiff", None, None, Console(quiet=True))
try:
    export(out, "ome-tiff", out + "-jpeg", 90, Console(quiet=True))
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("--jpeg: OME-TIFF in JPEG needs imagecodecs (pip install imagecodecs)")
    assert np.array_equal(
        tifffile.imread(tmp_path / "out-ome-tiff" / "000000000.ome.tif"), pair(0, 600, 700)[0]
    )
