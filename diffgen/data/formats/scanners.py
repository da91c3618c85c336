"""Slides as scanners write them, and tiled TIFFs, read by OpenSlide."""

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageCms

from diffgen.data.formats.base import Header, LeftOut, PyramidPixels, in_parts, on_white
from diffgen.data.formats.colour import describe
from diffgen.data.formats.scale import Mpp, plausible

try:
    import openslide
except ImportError:  # pictures and TIFFs are read without it
    openslide = None

GENERIC = "generic-tiff"
NAMES = {
    "aperio": "Aperio SVS",
    "argos": "Argos AVS",
    "dicom": "DICOM",
    "generic-tiff": "TIFF",
    "hamamatsu": "Hamamatsu",
    "huron": "Huron TIFF",
    "leica": "Leica SCN",
    "mirax": "MIRAX",
    "philips": "Philips TIFF",
    "sakura": "Sakura SVSLIDE",
    "synthetic": "OpenSlide's synthetic slide",
    "trestle": "Trestle TIFF",
    "ventana": "Ventana BIF",
    "zeiss": "Zeiss CZI",
}


class OpenSlidePixels(PyramidPixels):
    """A slide, read by OpenSlide. Between the regions of a scan, and beyond its edge, there is glass."""

    def __init__(self, path: str, mpp: Mpp | None = None) -> None:
        if openslide is None:
            raise LeftOut("cannot be read (OpenSlide is not installed)")
        self.slide = openslide.OpenSlide(path)
        self.size: tuple[int, int] = self.slide.dimensions
        self.downs = tuple((down, down) for down in self.slide.level_downsamples)
        self.mpp = own_mpp(self.slide.properties) or mpp

    def starts_at(self, level: int, left: int, top: int) -> tuple[float, float]:
        down = self.downs[level][0]
        return int(left * down) / down, int(top * down) / down

    def region(self, level: int, left: int, top: int, width: int, height: int) -> Image.Image:
        down = self.downs[level][0]
        corner = int(left * down), int(top * down)
        return on_white(self.slide.read_region(corner, level, (width, height)))

    def profile(self) -> bytes | None:
        """Its colour profile, as it is in the file."""
        try:
            found = self.slide.color_profile
        except ImageCms.PyCMSError:  # damaged
            return None
        return None if found is None else found.tobytes()

    def header(self) -> Header:
        properties = self.slide.properties
        vendor = properties.get(openslide.PROPERTY_NAME_VENDOR, "")
        profile = self.profile()
        bounds = [properties.get(f"openslide.bounds-{name}") for name in ("x", "y", "width", "height")]
        x, y, width, height = (int(value) if value is not None else 0 for value in bounds)
        return Header(
            format=NAMES.get(vendor, vendor),
            size=self.size,
            mpp=self.mpp,
            icc=None if profile is None else describe(profile),
            channels=3,
            memory=in_parts(self.size),
            offset=(x, y),
            extent=(width, height) if width and height else None,
        )


def vendor_of(path: str) -> str | None:
    """By whose format OpenSlide would open a file; None if by none."""
    found: str | None = openslide.OpenSlide.detect_format(path) if openslide else None
    return found


def parts_of_slide(path: str) -> set[str]:
    """Paths of the files that a slide's index (`.vms`, `.vmu`) names: they are parts of it, no pictures."""
    if Path(path).suffix.lower() not in {".vms", ".vmu"}:
        return set()
    with Path(path).open(encoding="utf-8", errors="replace") as lines:
        values = (line.partition("=")[2].strip() for line in lines)
        return {str(file) for name in values if name and (file := Path(path).with_name(name)).is_file()}


def own_mpp(properties: Mapping[str, str]) -> Mpp | None:
    """What a scanner says."""
    try:
        x, y = (float(properties.get(f"openslide.mpp-{axis}") or 0) for axis in "xy")
    except ValueError:
        return None
    return plausible(x or y, y or x)
