"""Local descriptors of pictures (SIFT; Lowe, 2004): points that a copy keeps, cut, turned or enlarged.

Invariants: every picture is grey, of contrast 1 and `SIDE` pixels wide, whatever its size and stain, and has
`POINTS` points at most; what is found in one does not depend on the others. A mirrored picture needs no
second look: its descriptors are those of the picture in another order.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from diffgen.labels import Picture

SIDE = 128
"""Pixels that a picture is brought to: averages of a larger one, which lose what a codec would."""
POINTS = 150
CONTRAST, EDGE = 0.01, 15.0
"""SIFT's thresholds. With 0.01 a median region of real tissue (128 px) has all 150 points."""
WEIGHTS = np.array([0.5, 0.5, 0], np.float32)
"""Of red, green and blue. Haematoxylin shows in both, eosin in green. Of copies (NuInsSeg) in JPEG of quality
30 red alone finds 73 %, luminance 97 %, this all; of those in another stain 100 %, 98 % and 100 %."""
FINEST = 1.25
"""Deviation in pixels of the Gaussian that takes away what is finer, noise above all."""
SPREAD = 48
"""Grey levels of a picture's standard deviation: what strength of stain is taken away."""
FLAT = 0.5
"""Grey levels of 255 below which a picture has no pattern but that of rounding."""
LEAST = 32
"""Side in pixels of the smallest pictures that are looked at."""
LENGTH = 128

Greys = NDArray[np.uint8]
"""(N, SIDE, SIDE)"""


@dataclass(frozen=True)
class LocalFeatures:
    """Points of a set of pictures, in the pictures' order."""

    greys: Greys
    starts: NDArray[np.intp]
    """(N + 1,): rows of a picture's points begin and end here."""
    places: NDArray[np.float32]
    """(P, 2): x and y in pixels of the grey pictures."""
    descriptors: NDArray[np.float32]
    """(P, 128): of length 1 (RootSIFT; Arandjelović and Zisserman, 2012): products are similarities."""

    def __len__(self) -> int:
        return len(self.greys)

    def of(self, picture: int) -> slice:
        """The rows of a picture's points."""
        return slice(int(self.starts[picture]), int(self.starts[picture + 1]))

    @property
    def pictures(self) -> NDArray[np.intp]:
        """(P,): which picture each point is of."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def mirrored(self) -> "LocalFeatures":
        """The same of the pictures flipped from left to right."""
        places = self.places.copy()
        places[:, 0] = SIDE - 1 - places[:, 0]
        return LocalFeatures(
            np.ascontiguousarray(self.greys[:, :, ::-1]), self.starts, places, self.descriptors[:, MIRROR]
        )


def _mirror() -> NDArray[np.intp]:
    """Order of a mirrored patch's values: 4 rows by 4 columns by 8 directions, about the main direction."""
    rows, columns, directions = np.meshgrid(np.arange(4), np.arange(4), np.arange(8), indexing="ij")
    return np.asarray(((3 - rows) * 4 + columns) * 8 + (-directions) % 8).reshape(-1)


MIRROR = _mirror()


def grey(picture: Picture) -> Greys:
    """(SIDE, SIDE): a square picture (S, S, 3) without its finest detail, of one mean and contrast.

    0 for a picture without a pattern, such as glass.
    """
    one = np.ascontiguousarray(picture).astype(np.float32) @ WEIGHTS
    if one.std() < FLAT:
        return np.zeros((SIDE, SIDE), np.uint8)
    if one.shape != (SIDE, SIDE):
        how = cv2.INTER_AREA if len(one) > SIDE else cv2.INTER_CUBIC
        one = np.asarray(cv2.resize(one, (SIDE, SIDE), interpolation=how))
    one = np.asarray(cv2.GaussianBlur(one, (0, 0), FINEST))
    scaled = (one - one.mean()) * (SPREAD / max(float(one.std()), 1e-6)) + 128
    return np.asarray(scaled.clip(0, 255).round(), dtype=np.uint8)


def local_features(greys: Greys, done: Callable[[int], object] = lambda _: None) -> LocalFeatures:
    """Points of pictures as `grey` gives them; `done` is told how many pictures are, as they are."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # OpenCV works outside of Python's lock
        found = list[tuple[NDArray[np.float32], NDArray[np.float32]]]()
        for one in pool.map(_points, greys):
            found.append(one)
            done(1)
    return LocalFeatures(
        greys,
        np.cumsum([0, *(len(places) for places, _ in found)], dtype=np.intp),
        np.concatenate([np.empty((0, 2), np.float32), *(places for places, _ in found)]),
        np.concatenate([np.empty((0, LENGTH), np.float32), *(descriptors for _, descriptors in found)]),
    )


def _points(one: Greys) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Places (P, 2) and descriptors (P, 128) of the strongest points, in an order that is always the same."""
    finder = cv2.SIFT.create(nfeatures=POINTS, contrastThreshold=CONTRAST, edgeThreshold=EDGE)
    points, found = finder.detectAndCompute(one, None)  # type: ignore[call-overload]  # no mask
    if not points:
        return np.empty((0, 2), np.float32), np.empty((0, LENGTH), np.float32)
    order = sorted(range(len(points)), key=lambda k: (-points[k].response, points[k].pt, points[k].angle))
    order = order[:POINTS]
    found = np.asarray(found, np.float32)[order]
    places = np.array([points[k].pt for k in order], np.float32)
    return places, np.sqrt(found / np.maximum(found.sum(axis=1, keepdims=True), 1e-9))
