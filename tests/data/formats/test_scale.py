from pathlib import Path
from typing import Any

import pytest
import tifffile
from PIL import Image

from diffgen.data.formats.base import LeftOut
from diffgen.data.formats.plain import header as plain_header
from diffgen.data.formats.scale import NO_MPP, UNITS, of_inches, of_ome, plausible, settled
from diffgen.data.formats.tiff import header
from tests.data.pictures import tissue

CASES: dict[str, tuple[dict[str, Any], tuple[float, float] | None]] = {
    "ome": ({"ome": True, "metadata": {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.26}}, (0.25, 0.26)),
    "ome_nm": (
        {
            "ome": True,
            "metadata": {
                "PhysicalSizeX": 500,
                "PhysicalSizeXUnit": "nm",
                "PhysicalSizeY": 500,
                "PhysicalSizeYUnit": "nm",
            },
        },
        (0.5, 0.5),
    ),
    "ome_x_alone": ({"ome": True, "metadata": {"PhysicalSizeX": 0.25}}, (0.25, 0.25)),
    "ome_of_pixels": (
        {"ome": True, "metadata": {"PhysicalSizeX": 1.0, "PhysicalSizeXUnit": "pixel"}},
        None,
    ),
    "ome_over_tags": (
        {
            "ome": True,
            "metadata": {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25},
            "resolution": (1e4, 1e4),
            "resolutionunit": "CENTIMETER",
        },
        (0.25, 0.25),
    ),
    "imagescope": (
        {"description": "exported |AppMag = 20|MPP = 0.4990|Left = 3", "metadata": None},
        (0.499, 0.499),
    ),
    "imagej_micron": ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "micron"}}, (0.25, 0.25)),
    "imagej_escaped": (
        {"imagej": True, "resolution": (4, 4), "metadata": {"unit": "\\u00B5m"}},
        (0.25, 0.25),
    ),
    "imagej_mm": ({"imagej": True, "resolution": (2000, 2000), "metadata": {"unit": "mm"}}, (0.5, 0.5)),
    "imagej_pixels": ({"imagej": True, "resolution": (1, 1), "metadata": {"unit": "pixel"}}, None),
    "cm": ({"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}, (0.5, 0.5)),
    "inch": ({"resolution": (50_800, 50_800), "resolutionunit": "INCH"}, (0.5, 0.5)),
    "no_unit": ({"resolution": (2e4, 2e4), "resolutionunit": "NONE"}, None),
    "72_dpi": ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
    "2400_dpi": ({"resolution": (2400, 2400), "resolutionunit": "INCH"}, None),
    "cm_called_inch": ({"resolution": (1e4, 1e4), "resolutionunit": "INCH"}, None),
}


@pytest.mark.parametrize("name", CASES)
def test_where_micrometres_come_from(tmp_path: Path, name: str) -> None:
    options, expected = CASES[name]
    tifffile.imwrite(tmp_path / "a.tif", tissue(64, 48), photometric="rgb", **options)
    assert header(str(tmp_path / "a.tif")).mpp == (expected and pytest.approx(expected, rel=1e-3))


@pytest.mark.parametrize("dpi", [50_800, 72, 2400, None])
def test_a_png_carries_its_resolution_where_it_is_a_microscopes(tmp_path: Path, dpi: int | None) -> None:
    image = Image.fromarray(tissue(64, 48))
    image.save(tmp_path / "a.png", **({"dpi": (dpi, dpi)} if dpi else {}))
    found = plain_header(str(tmp_path / "a.png")).mpp
    assert found == (pytest.approx((0.5, 0.5), rel=1e-3) if dpi == 50_800 else None)


def test_micrometres_that_hold() -> None:
    assert settled((0.25, 0.26), None, None, "a.svs") == ((0.25, 0.26), False)
    assert settled((0.25, 0.25), 1.0, None, "a.svs") == ((0.25, 0.25), False)
    assert settled(None, 0.5, None, "a.svs") == ((0.5, 0.5), True)
    assert settled((0.25, 0.5), 1.0, 0.3, "a.svs") == ((0.3, 0.3), False)
    with pytest.raises(LeftOut, match=NO_MPP):
        settled(None, None, None, "a.svs")
    with pytest.raises(LeftOut, match=r"0\.25 µm per pixel across and 0\.5 down; .*--mpp-override 'a\.svs="):
        settled((0.25, 0.5), None, None, "a.svs")


def test_resolutions_for_printing_are_none() -> None:
    assert plausible(352.8, 352.8) is None
    assert plausible(0.25, 0.25) == (0.25, 0.25)
    assert of_inches(0, 72) is None
    assert of_inches(25_400, 25_400) == (1.0, 1.0)


def test_the_image_of_that_number_is_asked_and_what_is_no_ome_says_nothing() -> None:
    one = '<Image><Pixels PhysicalSizeX="{}" PhysicalSizeY="{}"/></Image>'
    text = f"<OME xmlns='http://x'>{one.format(0.5, 0.5)}{one.format(2, 2)}</OME>"
    assert of_ome(text, 1, 2) == (2, 2)
    assert of_ome(text, 1, 3) == (0.5, 0.5)
    assert of_ome(text.replace("0.5", "?")) is None
    assert of_ome("<OME/>") is None
    assert of_ome("no XML") is None


def test_every_unit_is_written_in_small_letters() -> None:
    """They are looked up that way."""
    assert all(name == name.lower() for name in UNITS)
    assert UNITS["mm"] == 1000 * UNITS["µm"]
