"""Whether two pictures show the same tissue: one is laid over the other by their points, and compared.

The map is a similarity (shift, turn, scale) found by RANSAC and least squares (OpenCV), which most of the
matched points need not follow. What decides is not their number but the pixels: both pictures, of one size
and without what is coarser or finer than nuclei, agree in a block where their normalised correlation is high,
and are the same where many blocks agree. Blocks are each normalised by themselves: neither stain, light nor
one dark speck counts, and a part of the picture may be another's.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label as components

from diffgen.evaluation.local_features import SIDE, Greys, LocalFeatures

BLOCK = 16
"""Side in pixels of a block, an eighth of the picture's."""
FINE, COARSE = 1.5, 8.0
"""Pixels: deviations of the Gaussians between which a picture is compared."""
PATTERN = 2.0
"""Standard deviation in grey levels (of 48 in the whole picture) from which a block has a pattern."""
FAINT = 0.1
"""Of the strongest block's: what is fainter is the halo of a speck on glass."""
AGREES = 0.7
"""Correlation from which a block agrees."""
EQUAL = 0.9
"""Correlation from which it does so nearly pixel by pixel."""
REACH = 3.0
"""Pixels by which a point may be off the map."""
LEAST_POINTS = 4
SCALES = 0.38, 2.65
"""A crop of a quarter, enlarged, or one of four regions of what was halved; and 1.25 times more, or less."""

Map = NDArray[np.float64]
"""(2, 3): from pixels of a training picture to those of the picture."""


class Alignment(NamedTuple):
    """A training picture laid over a picture."""

    agreeing: int
    """Blocks of 64 that agree."""
    equal: int
    """Those of one piece that do so nearly pixel by pixel, of the largest such piece."""
    ncc: float
    """Mean correlation of those blocks in which both have a pattern."""
    map: Map

    @property
    def score(self) -> float:
        """Of several, the one with the largest is right."""
        return self.agreeing * max(self.ncc, 0.0) + self.equal


def matched(picture: LocalFeatures, row: int, training: LocalFeatures, other: int) -> Map | None:
    """The map between two pictures by those of their points that are each other's nearest, if any."""
    mine, theirs = picture.of(row), training.of(other)
    likeness = picture.descriptors[mine] @ training.descriptors[theirs].T
    if not likeness.size:
        return None
    nearest = likeness.argmax(axis=1)
    mutual = likeness.argmax(axis=0)[nearest] == np.arange(len(nearest))
    return fitted(picture.places[mine][mutual], training.places[theirs][nearest[mutual]])


def banded(one: Greys) -> NDArray[np.float32]:
    """A grey picture between the two scales, (SIDE, SIDE)."""
    sharp = one.astype(np.float32)
    return np.asarray(cv2.GaussianBlur(sharp, (0, 0), FINE) - cv2.GaussianBlur(sharp, (0, 0), COARSE))


def fitted(of_picture: NDArray[np.float32], of_training: NDArray[np.float32]) -> Map | None:
    """The similarity that maps most matched points (n, 2) of a training picture to those of a picture."""
    if len(of_picture) < LEAST_POINTS:
        return None
    found, inside = cv2.estimateAffinePartial2D(
        of_training, of_picture, method=cv2.RANSAC, ransacReprojThreshold=REACH, maxIters=1000,
        confidence=0.995, refineIters=10,
    )  # fmt: skip
    if found is None or int(inside.sum()) < LEAST_POINTS:
        return None
    scale = float(np.hypot(found[0, 0], found[1, 0]))
    return np.asarray(found, np.float64) if SCALES[0] < scale < SCALES[1] else None


def aligned(picture: NDArray[np.float32], training: Greys, over: Map) -> Alignment:
    """How far a picture (as `banded`) and a training picture that is laid over it agree."""
    one, two = _whitened(picture, training, over)
    ncc = (one * two).mean(axis=1)
    told = one.any(axis=1)
    mean = float(ncc[told].mean()) if told.any() else 0.0
    return Alignment(int((ncc > AGREES).sum()), _largest_piece(ncc > EQUAL), mean, over)


def _largest_piece(blocks: NDArray[np.bool_]) -> int:
    """Number of blocks in the largest piece of the picture that they make, side by side."""
    across = SIDE // BLOCK
    pieces, _ = components(blocks.reshape(across, across))
    return int(np.bincount(pieces.reshape(-1))[1:].max(initial=0))


def peak(picture: NDArray[np.float32], training: Greys, over: Map) -> float:
    """How much better the two agree as they are laid than shifted otherwise, in standard deviations.

    Large, smooth shapes agree in many places: what they have by chance is a few deviations at most.
    """
    one, two = (np.fft.rfft2(_joined(x)) for x in _whitened(picture, training, over))
    surface = np.fft.irfft2(one * two.conj())
    return float(surface[0, 0] / max(surface.std(), 1e-9))


def _whitened(
    picture: NDArray[np.float32], training: Greys, over: Map
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Blocks (64, pixels) of both, each of mean 0 and deviation 1; zeros where one of them has no pattern."""
    size = (SIDE, SIDE)
    laid = cv2.warpAffine(training, over, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.ones_like(training), over, size, flags=cv2.INTER_NEAREST)
    one, two = (_blocks(x) for x in (picture, banded(np.asarray(laid, np.uint8))))
    one, two = one - one.mean(axis=1, keepdims=True), two - two.mean(axis=1, keepdims=True)
    spreads = one.std(axis=1), two.std(axis=1)
    told = _blocks(inside).mean(axis=1) > 0.9
    for spread in spreads:
        told &= spread > max(PATTERN, FAINT * float(spread.max()))
    one, two = (
        np.where(told[:, None], x / np.maximum(s, PATTERN)[:, None], 0)
        for x, s in zip((one, two), spreads, strict=True)
    )
    return one, two


def _joined(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """A picture of its blocks."""
    across = SIDE // BLOCK
    return blocks.reshape(across, across, BLOCK, BLOCK).swapaxes(1, 2).reshape(SIDE, SIDE)


def quarters(number: int) -> Map:
    """The map of so many quarter turns about the picture's middle, as `numpy.rot90` makes them."""
    cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[number % 4]
    turn, middle = np.array([[cosine, sine], [-sine, cosine]], float), np.full(2, (SIDE - 1) / 2)
    return np.column_stack([turn, middle - turn @ middle])


def _blocks(one: NDArray[np.generic]) -> NDArray[np.float32]:
    """(blocks, pixels)"""
    across = SIDE // BLOCK
    parts = one.reshape(across, BLOCK, across, BLOCK).swapaxes(1, 2)
    return np.asarray(parts.reshape(across**2, BLOCK**2), np.float32)
