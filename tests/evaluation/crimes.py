"""What is planted in the tests: pictures of a texture, copies of them that are hidden, features of them."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude
from skimage.color import hed2rgb, rgb2hed

NUCLEI, STROMA = np.array([90, 60, 140]), np.array([235, 190, 215])


def textures(count: int, seed: int, side: int = 64) -> np.ndarray:
    """(count, side, side, 3): blobs of a random size, density and sharpness, in two stains with noise."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        field = gaussian_filter(rng.standard_normal((side, side)), rng.uniform(1.5, 6), mode="wrap")
        field = (field - field.mean()) / field.std() + rng.uniform(-1, 1)
        inside = (1 / (1 + np.exp(-rng.uniform(1, 8) * field)))[..., None]
        noise = rng.normal(0, 6, (side, side, 3)) + rng.normal(0, 8, 3)
        found.append((inside * NUCLEI + (1 - inside) * STROMA + noise).clip(0, 255).astype(np.uint8))
    return np.stack(found)


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, "JPEG", quality=quality)
    return np.asarray(Image.open(sink))


def restained(picture: np.ndarray) -> np.ndarray:
    """More eosin, less haematoxylin: another laboratory's colours."""
    return (hed2rgb(rgb2hed(picture) * (0.7, 1.4, 1.0)) * 255).clip(0, 255).astype(np.uint8)


CRIMES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exact": lambda picture: picture,
    "flipped": lambda picture: picture[:, ::-1],
    "turned": lambda picture: np.rot90(picture),
    "both": lambda picture: np.rot90(picture[::-1], 3),
    "recoloured": restained,
    "darker": lambda picture: (0.7 * picture).astype(np.uint8),
    "jpeg": lambda picture: jpeg(picture, 30),
}


def copied(pictures: np.ndarray, crime: str) -> np.ndarray:
    return np.stack([CRIMES[crime](picture) for picture in pictures])


def features(pictures: np.ndarray) -> np.ndarray:
    """(N, 36): what a network keeps that does not see flips, turns, brightness and contrast.

    Quantiles of grey values, standardised, and the mean slope, at four scales.
    """
    found = []
    for grey in pictures.mean(axis=-1):
        grey = (grey - grey.mean()) / grey.std()
        scales = [gaussian_filter(grey, scale) if scale else grey for scale in (0, 1, 2, 4)]
        quantiles = [np.quantile(one, np.linspace(0.05, 0.95, 8)) for one in scales]
        slopes = [gaussian_gradient_magnitude(grey, scale).mean() for scale in (0.7, 1, 2, 4)]
        found.append(np.concatenate([*quantiles, slopes]))
    return np.stack(found)
