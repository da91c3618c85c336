"""Label maps of the mask model: to bits and back, cleaned, enlarged, and onto the latent grid.

The mask model works on analog bits (Chen et al., 2022): class ids as ±1 bit planes at the mask's
own scale. Cleaning and enlarging only ever choose among the classes that are there, so a border
never becomes a band of some third class (the paper's Appendix F turns it into unknown).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import gaussian
from skimage.measure import label as connected_components
from skimage.transform import resize

from diffgen.labels import LabelMap

BLUR = 0.5  # mask pixels: rounds the corners of mask pixels, keeps a line that is one of them wide


def num_bits(num_classes: int) -> int:
    """Bit planes that `num_classes` ids need."""
    return max(1, (num_classes - 1).bit_length())


def codewords(num_classes: int) -> NDArray[np.float32]:
    """(classes, bits): each id as ±1 bits, lowest bit first."""
    ids = np.arange(num_classes)[:, None] >> np.arange(num_bits(num_classes))[None, :]
    return (2.0 * (ids & 1) - 1.0).astype(np.float32)


def to_bits(label_map: LabelMap, num_classes: int) -> NDArray[np.float32]:
    """Label map (H, W) → ±1 bit planes (bits, H, W)."""
    return np.ascontiguousarray(codewords(num_classes)[label_map].transpose(2, 0, 1))


def from_bits(bits: NDArray[np.float32], num_classes: int) -> LabelMap:
    """Bit planes (bits, H, W) of any value → the class whose codeword is nearest; never an id too high."""
    scores = np.einsum("kb,bhw->khw", codewords(num_classes), bits)  # all codewords are equally long
    return scores.argmax(axis=0).astype(np.uint8)


def clean(label_map: LabelMap, min_pixels: int) -> LabelMap:
    """Regions below `min_pixels` given to the class of the nearest pixel of a larger region."""
    regions = connected_components(label_map, background=-1, connectivity=1)
    small = np.bincount(regions.reshape(-1))[regions] < min_pixels
    if not small.any() or small.all():
        return label_map
    nearest = ndimage.distance_transform_edt(small, return_distances=False, return_indices=True)
    return label_map[tuple(nearest)]


def enlarge(label_map: LabelMap, factor: int, height: int, width: int) -> LabelMap:
    """Label map at `factor` times its scale, cut to (height, width), with smooth borders.

    Each class's indicator, a little blurred, is interpolated by cubic splines and the largest wins: a
    border between two classes stays a border between these two.
    """
    full = (label_map.shape[0] * factor, label_map.shape[1] * factor)
    best = np.full((height, width), -np.inf, dtype=np.float32)
    chosen = np.zeros((height, width), dtype=np.uint8)
    for class_id in np.unique(label_map):  # one at a time: the memory of two maps, however many classes
        indicator = gaussian((label_map == class_id).astype(np.float32), BLUR, mode="nearest")
        share = resize(indicator, full, order=3, mode="edge", anti_aliasing=False)[:height, :width]
        chosen[share > best] = class_id
        np.maximum(best, share, out=best)
    return chosen


def on_grid(label_map: LabelMap, factor: int) -> LabelMap:
    """Label map (H, W) at the latent grid (H/f, W/f) by nearest: the pixel at each block's centre."""
    return np.ascontiguousarray(label_map[factor // 2 :: factor, factor // 2 :: factor])
