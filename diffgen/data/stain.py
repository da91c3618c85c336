"""Weak labels from the stains: background, stroma-like, epithelium-like, nuclei-rich.

Haematoxylin and eosin by colour deconvolution, averaged over the tissue of a neighbourhood, then k-means
over a fixed sample of all sources from fixed starting centres; the clusters are ordered by their
haematoxylin. So the same sources give the same labels, and a pixel's label depends on nothing but its
slide and the model: not on the patch it is seen in, nor on the scale of the patch.

One model serves all sources of a run, each in units of its own stains' strength: else the class would be the
slide, where one is stained more strongly than another.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.cluster.vq import kmeans2
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2hed

from diffgen.data.formats.base import Box
from diffgen.data.slides import Slide
from diffgen.data.tissue import TISSUE_UM, Mask, optical_density
from diffgen.labels import LabelMap, Picture

STAIN_CLASSES = ("background", "stroma-like", "epithelium-like", "nuclei-rich")
STAIN_COLOURS = ((205, 216, 232), (240, 150, 170), (120, 90, 200), (35, 30, 120))
STAIN_UM = 2.0
"""Side of the pixels on which the stains are measured, in µm."""
SIGMA_UM = 10.0
"""Neighbourhood over which the stains are averaged: some nuclei wide."""
EDGE_UM = 4.0
"""Neighbourhood that decides between tissue and background: lumina keep their shape."""
FILLED = 0.12
"""Optical density above which a pixel counts as tissue."""
TRUNCATE = 3.0
"""Reach of the averages in sigmas; what is read around a region covers it, so borders do not matter."""
SAMPLE_TILES, SAMPLE_SIDE, SAMPLE_STRIDE = 8, 192, 16
"""Per source, what the model is fitted to: tiles, their side in pixels of STAIN_UM, every how many pixels."""
STRONG = 0.99
"""Quantile of a slide's stains that is their strength: that of its nuclei, and of its densest stroma."""
FIT_PIXELS = 200_000
FIT_QUANTILE = 0.99
"""Stronger stains (ink, folds, pictures that are no H&E) are taken as this strong: they get no class."""

Strength = tuple[float, float]
"""Of a slide's haematoxylin and eosin."""
Features = NDArray[np.float32]
"""(H, W, 3): share of tissue, haematoxylin, eosin."""


@dataclass(frozen=True)
class StainModel:
    """Centres of the tissue classes (haematoxylin, eosin by a slide's strength), in units of `scales`."""

    centres: tuple[tuple[float, float], ...]
    scales: tuple[float, float]

    def classify(self, features: Features) -> LabelMap:
        """(H, W, 3) → (H, W) index into `STAIN_CLASSES`."""
        stains = features[..., 1:] / np.asarray(self.scales, np.float32)
        centres = np.asarray(self.centres, np.float32)
        distances = np.stack([((stains - centre) ** 2).sum(axis=-1) for centre in centres])
        classes: LabelMap = (1 + distances.argmin(axis=0)).astype(np.uint8)
        return np.where(features[..., 0] < 0.5, np.uint8(0), classes)

    def label(
        self, slide: Slide, strength: Strength, x: int, y: int, width: int, height: int, um: float
    ) -> LabelMap:
        """(height, width) index into `STAIN_CLASSES` of a region, its place and size in pixels of `um` µm."""
        features = region_features(slide, x, y, width, height, um)
        units: Features = np.array([1.0, *strength], np.float32)
        return self.classify(features / units)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        centres = tuple((float(h), float(e)) for h, e in told["centres"])
        return cls(centres, (float(told["scales"][0]), float(told["scales"][1])))

    def to_json(self) -> dict[str, Any]:
        return {"features": ["haematoxylin", "eosin"], "centres": self.centres, "scales": self.scales}


def stain_features(picture: Picture, um: float) -> Features:
    """(H, W, 3) RGB at `um` µm per pixel → features; skimage's `rgb2hed` (Ruifrok and Johnston, 2001)."""
    stains = rgb2hed(picture).astype(np.float32)
    filled = (optical_density(picture) > FILLED).astype(np.float32)

    def smooth(channel: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
        return np.asarray(gaussian_filter(channel, sigma / um, truncate=TRUNCATE), np.float32)

    # Averages over tissue only: else the gaps of a loose stroma would look like a pale stain.
    weight = smooth(filled, SIGMA_UM) + 1e-6
    means = [smooth(stains[..., i] * filled, SIGMA_UM) / weight for i in (0, 1)]
    return np.stack([smooth(filled, EDGE_UM), *means], axis=-1)


def region_features(slide: Slide, x: int, y: int, width: int, height: int, um: float) -> Features:
    """(height, width, 3) features of a region, measured at `STAIN_UM` with a margin and interpolated."""
    coarse = max(STAIN_UM, um)
    full = slide.size(coarse)
    ratio = um / coarse
    margin = int(TRUNCATE * SIGMA_UM / coarse) + 3
    left, top = max(0, int(x * ratio) - margin), max(0, int(y * ratio) - margin)
    right = min(full[0], int((x + width) * ratio) + margin + 1)
    bottom = min(full[1], int((y + height) * ratio) + margin + 1)
    features = stain_features(slide.read(left, top, right - left, bottom - top, coarse), coarse)
    box = (
        x * ratio - left,
        y * ratio - top,
        min(right - left, (x + width) * ratio - left),
        min(bottom - top, (y + height) * ratio - top),
    )
    return np.stack([_resize(features[..., i], (width, height), box) for i in range(3)], axis=-1)


def _resize(channel: NDArray[np.float32], size: tuple[int, int], box: Box) -> NDArray[np.float32]:
    image = Image.fromarray(np.ascontiguousarray(channel))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box))


@dataclass(frozen=True)
class StainSample:
    """Stains of a slide, at fixed places spread over its tissue."""

    pixels: NDArray[np.float32]
    """(n, 2) haematoxylin and eosin of neighbourhoods, in units of the strength."""
    strength: Strength


def sample(slide: Slide, tissue: Mask) -> StainSample:
    """What a slide adds to the model."""
    where = np.argwhere(tissue)
    width, height = slide.size(STAIN_UM)
    found, stains = [], []
    for row, column in where[np.linspace(0, len(where) - 1, SAMPLE_TILES).astype(int)]:
        x = max(0, min(int(column * TISSUE_UM / STAIN_UM) - SAMPLE_SIDE // 2, width - SAMPLE_SIDE))
        y = max(0, min(int(row * TISSUE_UM / STAIN_UM) - SAMPLE_SIDE // 2, height - SAMPLE_SIDE))
        box = x, y, min(SAMPLE_SIDE, width), min(SAMPLE_SIDE, height)
        features = region_features(slide, *box, STAIN_UM)
        filled = features[..., 0] >= 0.5
        found.append(features[filled][:, 1:])
        stains.append(rgb2hed(slide.read(*box, STAIN_UM))[filled][:, :2])
        if width <= SAMPLE_SIDE and height <= SAMPLE_SIDE:
            break
    pixels, own = np.concatenate(found), np.concatenate(stains)
    high = np.quantile(own, STRONG, axis=0) if len(own) else (1.0, 1.0)
    strength = (max(1e-3, float(high[0])), max(1e-3, float(high[1])))
    scaled = pixels[::SAMPLE_STRIDE] / np.asarray(strength, np.float32)
    return StainSample(scaled.astype(np.float32), strength)


def fit(pixels: NDArray[np.float32]) -> StainModel | None:
    """Model of a sample (n, 2) of tissue pixels; None where they cannot be told apart."""
    count = len(STAIN_CLASSES) - 1
    if len(pixels) < 10 * count:
        return None
    pixels = pixels[:: -(-len(pixels) // FIT_PIXELS)]
    pixels = np.minimum(pixels, np.quantile(pixels, FIT_QUANTILE, axis=0))
    scales = pixels.std(axis=0, dtype=np.float64) + 1e-6
    scaled = pixels / scales
    # Starts spread over the range, not over the mass: a rare class next to much stroma is still a class.
    low, high = np.quantile(scaled[:, 0], (0.02, 0.98))
    nearest = np.abs(scaled[:, :1] - np.linspace(low, high, count)).argmin(axis=1)
    starts = np.stack([scaled[nearest == i].mean(axis=0) for i in range(count) if (nearest == i).any()])
    if len(starts) < count:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty cluster keeps its centre: fewer classes occur
        centres, _ = kmeans2(scaled, starts, iter=50, minit="matrix")
    ordered = centres[np.argsort(centres[:, 0], kind="stable")]
    return StainModel(tuple((float(h), float(e)) for h, e in ordered), (float(scales[0]), float(scales[1])))
