"""µm per pixel, from whatever a file says: which to believe, and what is about printing.

In order: OME's PhysicalSize, `MPP = ` in a description (ImageScope), ImageJ's unit, the resolution tags.
"""

import re
from typing import Any
from xml.etree import ElementTree

from diffgen.data.formats.base import LeftOut

Mpp = tuple[float, float]

PLAUSIBLE_MPP = (0.05, 20.0)
"""Outside of it a resolution is about printing (72 dpi is 353 µm)."""
MOST_PRINTED, PRINTED = 10_000, 100
"""Resolutions per inch up to the first that are multiples of the second are about printing as well: 2400 dpi
would be 10.6 µm, and 10,000, where somebody wrote those of a centimetre, 2.54 µm."""
MOST_APART = 0.05
NO_MPP = "gives no µm per pixel; say it with --mpp"
UNITS = {
    "m": 1e6,
    "meter": 1e6,
    "cm": 1e4,
    "centimeter": 1e4,
    "mm": 1e3,
    "millimeter": 1e3,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "\\u00b5m": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "å": 1e-4,
    "pm": 1e-6,
    "in": 25400.0,
    "inch": 25400.0,
    "inches": 25400.0,
}
"""µm in a unit, as OME and ImageJ spell it."""
MPP_TEXT = re.compile(r"\bMPP\s*=\s*([0-9]*\.?[0-9]+)", re.IGNORECASE)


def plausible(x: float, y: float) -> Mpp | None:
    """µm per pixel as a file gives them, or None where they cannot be those of a microscope."""
    low, high = PLAUSIBLE_MPP
    return (x, y) if low <= x <= high and low <= y <= high else None


def settled(own: Mpp | None, assumed: float | None, override: float | None, name: str) -> tuple[Mpp, bool]:
    """µm per pixel (x, y) to use, and whether they are assumed: `override`, the file's `own`, else `assumed`.

    Raises `LeftOut` where there are none, or where those of the file differ between x and y.
    """
    if override is not None:
        return (override, override), False
    if own is None:
        if assumed is None:
            raise LeftOut(NO_MPP)
        return (assumed, assumed), True
    if max(own) > min(own) * (1 + MOST_APART):
        raise LeftOut(
            f"says {own[0]:.4g} µm per pixel across and {own[1]:.4g} down; "
            f"say the right one with --mpp-override '{name}=…'"
        )
    return own, False


def of_inches(x: float, y: float) -> Mpp | None:
    """From pixels per inch, where they are those of a microscope."""
    if x <= 0 or y <= 0:
        return None
    printed = (n <= MOST_PRINTED and abs(n / PRINTED - round(n / PRINTED)) < 1e-4 for n in (x, y))
    return None if any(printed) else plausible(25400 / x, 25400 / y)


def of_tiff(tiff: Any, page: Any, image: int, series: int) -> Mpp | None:
    """Of a `TiffFile`, its first page, and which image of an OME-TIFF is read, of how many."""
    if tiff.is_ome and (found := of_ome(tiff.ome_metadata, image, series)):
        return found
    if text := MPP_TEXT.search(page.description):
        return plausible(float(text[1]), float(text[1]))
    if tiff.is_imagej:
        unit = UNITS.get(str((tiff.imagej_metadata or {}).get("unit", "")).strip().lower())
        x, y = (_fraction(page, tag) for tag in ("XResolution", "YResolution"))
        return plausible(unit / x, unit / y) if unit and x and y else None
    inch = {2: 1.0, 3: 2.54, 4: 25.4, 5: 25400.0}.get(int(page.resolutionunit or 1))
    x, y = (_fraction(page, tag) for tag in ("XResolution", "YResolution"))
    return of_inches(x * inch, y * inch) if inch and x and y else None


def _fraction(page: Any, tag: str) -> float:
    value = page.tags.valueof(tag)
    if isinstance(value, tuple) and len(value) == 2:
        return value[0] / value[1] if value[1] else 0.0
    return 0.0


def of_ome(text: str, image: int = 0, images: int = 0) -> Mpp | None:
    """Of OME-XML: the image of that number, if there are as many as the file has; else the first."""
    found = ome_pixels(text, image, images)
    if found is None:
        return None
    sizes = []
    for axis in "XY":
        unit = UNITS.get(found.get(f"PhysicalSize{axis}Unit", "µm").strip().lower())
        try:
            sizes.append(float(found.get(f"PhysicalSize{axis}", "0")) * (unit or 0.0))
        except ValueError:
            return None
    x, y = sizes
    return plausible(x or y, y or x)


def ome_pixels(text: str, image: int, images: int) -> ElementTree.Element | None:
    """The `Pixels` element of an image of OME-XML."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return None
    every = root.findall("{*}Image/{*}Pixels")
    if not every:
        return None
    return every[image] if image < len(every) and len(every) == images else every[0]


def ome_channels(text: str) -> tuple[tuple[str, bool], ...]:
    """(name, is a fluorescent dye) of the channels of the first image of OME-XML."""
    found = ome_pixels(text, 0, 0)
    if found is None:
        return ()
    return tuple(
        (channel.get("Name", ""), bool(channel.get("Fluor") or channel.get("EmissionWavelength")))
        for channel in found.findall("{*}Channel")
    )
