"""Pictures that Pillow reads as a whole: PNG, JPEG, BMP, WebP, JPEG 2000, TIFFs that nothing else reads."""

from PIL import Image

from diffgen.data.formats.base import ONE_CHANNEL, TURNED, Header, ImagePixels, too_large
from diffgen.data.formats.colour import describe, of_lab, to_srgb
from diffgen.data.formats.scale import Mpp, of_inches
from diffgen.shards import open_picture, orientation, shown_size, turn_upright

SIGNS = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"RIFF", b"GIF8", b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51")
"""How such files begin."""
NAMES = {"JPEG2000": "JPEG 2000", "WEBP": "WebP"}
DECODED = {"PNG": 4, "BMP": 4, "JPEG": 10, "JPEG2000": 16}
"""Bytes that a pixel takes at most while it is decoded: Pillow keeps RGB in four, a progressive JPEG its
coefficients beside them, JPEG 2000 an integer a channel."""
LAID_ON_WHITE = 8
"""And further ones where it is not RGB yet."""


def header(path: str) -> Header:
    """What the file says; raises what Pillow raises."""
    with open_picture(path) as image:
        profile = image.info.get("icc_profile")
        channels = len(image.getbands())
        grey = channels < 3 and image.mode not in {"P", "PA"}
        memory = memory_of(image)
        return Header(
            format=NAMES.get(image.format or "", image.format or "picture"),
            size=shown_size(image),
            mpp=own_mpp(image),
            icc=describe(profile) if profile else None,
            channels=3 if image.mode in {"P", "PA"} else channels,
            memory=memory,
            notes=(TURNED,) if orientation(image) != 1 else (),
            problem=ONE_CHANNEL if grey else too_large(memory),
        )


def open_plain(path: str, icc: bool, mpp: Mpp | None = None) -> ImagePixels:
    """The picture, decoded; `mpp` where its own is known otherwise. Raises what Pillow raises."""
    with open_picture(path) as image:
        own = mpp or own_mpp(image)
        image.load()
        turn_upright(image)
        profile = image.info.get("icc_profile") or b""
        if image.mode == "CMYK" or (icc and profile and image.mode == "RGB"):
            return ImagePixels(to_srgb(image, profile), own)
        if image.mode == "LAB":
            return ImagePixels(of_lab(image), own)
        pixels = ImagePixels(image, own)
    if icc and profile:
        pixels.image = to_srgb(pixels.image, profile)
    return pixels


def memory_of(image: Image.Image) -> int:
    """Bytes that decoding it takes."""
    if image.mode in {"1", "L", "I;16"}:  # a mask: decoded, and as an array
        return 2**25 + image.width * image.height * 4
    each = DECODED.get(image.format or "", 12)
    return 2**25 + image.width * image.height * (each + LAID_ON_WHITE * (image.mode != "RGB"))


def own_mpp(image: Image.Image) -> Mpp | None:
    """µm per pixel, if its resolution (PNG's pHYs, JPEG's density) is a microscope's."""
    dpi = image.info.get("dpi")
    return of_inches(float(dpi[0]), float(dpi[1])) if dpi else None
