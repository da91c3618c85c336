"""ICC profiles: what they call themselves, and colours in sRGB."""

import io
from functools import lru_cache

from PIL import Image, ImageCms

from diffgen.data.formats.base import Box, Pixels

DAMAGED = "a damaged profile"


class InSRGB:
    """Pixels with the colours of a profile, as sRGB.

    After the resampling: there are fewer pixels then, and a pixel still depends on nothing but its place.
    """

    def __init__(self, pixels: Pixels, profile: bytes) -> None:
        self.pixels, self.profile = pixels, profile
        self.size, self.mpp = pixels.size, pixels.mpp

    def take(self, box: Box, size: tuple[int, int]) -> Image.Image:
        return to_srgb(self.pixels.take(box, size), self.profile)


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """RGB or CMYK as sRGB; by PIL's own rule where the profile is none for this mode, or damaged."""
    transform = _transform(profile, image.mode)
    converted = ImageCms.applyTransform(image, transform) if transform else image.convert("RGB")
    assert converted is not None, "not in place"
    return converted


def of_lab(image: Image.Image) -> Image.Image:
    """A CIELAB image as sRGB: PIL has no other rule for it."""
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None, "not in place"
    return converted


@lru_cache(maxsize=64)
def describe(profile: bytes) -> str:
    """What a profile calls itself."""
    try:
        text = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError):
        return DAMAGED
    return " ".join(text.split()) or "a profile without a name"


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    if mode == "RGB" and "sRGB" in describe(profile):
        return None  # as it is
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.buildTransform(own, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None
