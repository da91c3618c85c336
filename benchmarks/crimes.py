"""Copies as someone would hide them, of a square region of a picture, each with a strength.

A crime is cut from the whole picture where the region lies in one, so what comes in at its edges is real.
"""

import io
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.color import hed2rgb, rgb2hed

Picture = NDArray[np.uint8]
Place = tuple[int, int, int]
"""y, x and side of a region in pixels."""
Crime = Callable[[Picture, Place, float], Picture]


def jpeg(picture: Picture, quality: float) -> Picture:
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, "JPEG", quality=int(quality))
    return np.asarray(Image.open(sink))


def stained(picture: Picture, strength: float) -> Picture:
    """Haematoxylin divided and eosin multiplied by `strength`, as another laboratory's stains may be."""
    return (hed2rgb(rgb2hed(picture) * (1 / strength, strength, 1)) * 255).clip(0, 255).astype(np.uint8)


def blurred(picture: Picture, deviation: float) -> Picture:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), deviation), np.uint8)


def noisy(picture: Picture, deviation: float) -> Picture:
    rng = np.random.default_rng(int(picture[:8, :8].sum()))
    return (picture + rng.normal(0, deviation, picture.shape)).clip(0, 255).astype(np.uint8)


def cut(picture: Picture, place: Place, scale: float = 1, shift: tuple[float, float] = (0, 0),
        turn: float = 0, mirror: bool = False) -> Picture:  # fmt: skip
    """The region moved by `shift` (x, y) px, turned by `turn`°, enlarged `scale` times about its middle."""
    y, x, side = place
    angle, middle = np.deg2rad(turn), np.full(2, (side - 1) / 2)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
    matrix = matrix @ np.diag([-1.0 if mirror else 1.0, 1.0])
    over = np.column_stack([matrix, np.array([x, y]) + shift + middle - matrix @ middle])
    smooth = picture if scale >= 1 else cv2.GaussianBlur(picture, (0, 0), 0.4 / scale)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return np.asarray(
        cv2.warpAffine(smooth, over, (side, side), flags=flags, borderMode=cv2.BORDER_REFLECT), np.uint8
    )


def pasted(picture: Picture, place: Place, percent: float) -> Picture:
    """The middle of the region, `percent` of its area, in a texture of its own spectrum and stains."""
    region = cut(picture, place)
    waves = np.fft.rfft2(region.astype(float), axes=(0, 1))
    noise = np.random.default_rng(int(region[:8, :8].sum())).normal(size=region.shape[:2])
    turned = np.exp(1j * np.angle(np.fft.rfft2(noise)))[..., None]
    out = np.fft.irfft2(waves * turned, region.shape[:2], axes=(0, 1))
    out = (out - out.mean(axis=(0, 1)) + region.mean(axis=(0, 1))).clip(0, 255).astype(np.uint8)
    side = round(place[2] * (percent / 100) ** 0.5)
    start = (place[2] - side) // 2
    inside = slice(start, start + side)
    out[inside, inside] = region[inside, inside]
    return out


CRIMES: dict[str, tuple[Crime, tuple[float, ...]]] = {
    "JPEG, quality": (lambda p, at, s: jpeg(cut(p, at), s), (70, 50, 30, 15)),
    "shift both ways, % of the side": (
        lambda p, at, s: jpeg(cut(p, at, shift=(s / 100 * at[2],) * 2), 70), (6, 9, 25, 50)),
    "part enlarged to full size, % of the area": (
        lambda p, at, s: cut(p, at, (100 / s) ** 0.5, (9, -7)), (64, 44, 25, 16)),
    "part pasted into other tissue, % of the area": (pasted, (50, 36, 25, 16)),
    "scale": (lambda p, at, s: cut(p, at, s), (0.5, 0.8, 1.25, 1.5)),
    "turn, °": (lambda p, at, s: cut(p, at, turn=s), (90, 180, 30, 45)),
    "blur, % of the side": (
        lambda p, at, s: blurred(cut(p, at), s / 100 * at[2]), (0.8, 1.6, 2.4, 3.2)),
    "noise, grey levels": (lambda p, at, s: noisy(cut(p, at), s), (5, 15, 30, 45)),
    "stain, times": (lambda p, at, s: stained(cut(p, at), s), (1.2, 1.4, 2, 0.6)),
    "mirrored and shifted, % of the side": (
        lambda p, at, s: cut(p, at, shift=(s / 100 * at[2],) * 2, mirror=True), (6, 9, 25, 50)),
    "shifted, enlarged 1.25, JPEG of quality": (
        lambda p, at, s: jpeg(cut(p, at, 1.25, (at[2] / 10, at[2] / 10)), s), (70, 50, 30, 15)),
    "mirrored, turned, shifted, enlarged 1.2, other stain, JPEG of quality": (
        lambda p, at, s: jpeg(stained(cut(p, at, 1.2, (at[2] / 10, 0), 90, True), 1.4), s), (90, 70, 50, 30)),
}  # fmt: skip
