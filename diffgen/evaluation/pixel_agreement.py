"""Which pixels of an image contradict its label map, as a segmenter of real images judges them.

FreeMask (Yang et al., NeurIPS 2023): a pixel whose cross-entropy is above 1.25 times the mean of its class on
the real *training* images is wrong, and becomes unknown: it teaches nothing. Invariants: unknown pixels are
never judged; nor is a class that the real images lack, as a segmenter that never saw it says nothing of it.
"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from diffgen.evaluation.small_nets import IGNORED, densities
from diffgen.labels import UNKNOWN, LabelMap, Picture

Losses = NDArray[np.float32]
AT_ONCE = 16
"""Pictures per forward."""


@torch.inference_mode()
def pixel_losses(
    network: nn.Module, pictures: NDArray[np.uint8], label_maps: NDArray[np.uint8], device: str = "cpu"
) -> Losses:
    """(B, H, W): cross-entropy of each pixel's own class in pictures (B, H, W, 3); 0 where it is unknown."""
    network = network.to(device).eval()
    found = []
    for start in range(0, len(pictures), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        target = torch.from_numpy(label_maps[rows].astype(np.int64) - 1).to(device)
        logits = network(densities(pictures[rows]).to(device))
        found.append(F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="none").cpu())
    return torch.cat(found).numpy()


def class_means(
    network: nn.Module, pairs: Iterable[tuple[Picture, LabelMap]], classes: int, device: str = "cpu"
) -> NDArray[np.float64]:
    """(classes,): mean loss by class id over all pixels of pictures; NaN for one that there is not."""
    total, pixels = np.zeros(classes), np.zeros(classes)
    for picture, label_map in pairs:
        losses = pixel_losses(network, picture[None], label_map[None], device)[0]
        total += np.bincount(label_map.reshape(-1), losses.reshape(-1).astype(float), classes)
        pixels += np.bincount(label_map.reshape(-1), minlength=classes)
    pixels[UNKNOWN] = 0
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pixels > 0, total / pixels, np.nan)


def disagreed(
    losses: Losses, label_maps: NDArray[np.uint8], means: NDArray[np.float64], factor: float
) -> NDArray[np.bool_]:
    """(…, H, W): known pixels whose loss is above `factor` times their class's mean."""
    limits = factor * means
    limits[UNKNOWN] = np.inf
    return losses > np.where(np.isnan(limits), np.inf, limits)[label_maps]


def share_of_known(wrong: NDArray[np.bool_], label_maps: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(…,): share of the known pixels (…, H, W) that are wrong; 0 where none is known."""
    known = (label_maps != UNKNOWN).sum(axis=(-2, -1))
    return np.asarray(wrong.sum(axis=(-2, -1)) / np.maximum(known, 1))
