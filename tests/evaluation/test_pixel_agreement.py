"""Pixels that contradict their picture: the loss by hand; unknown ones, unseen classes are never judged."""

import numpy as np
import pytest
import torch
from torch import nn

from diffgen.evaluation import pixel_agreement


class Knows(nn.Module):
    """The redder a pixel, the surer of the first of two known classes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([-x[:, 0], x[:, 0] - 1], dim=1)


def sample(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(0, 256, (3, 8, 8, 3), np.uint8), rng.integers(0, 3, (3, 8, 8), np.uint8)


def test_losses_are_cross_entropies_of_known_pixels(rng: np.random.Generator) -> None:
    pictures, maps = sample(rng)
    found = pixel_agreement.pixel_losses(Knows(), pictures, maps)
    density = -np.log10((pictures[..., 0] + 1.0) / 256)
    logits = np.stack([-density, density - 1])
    expected = np.log(np.exp(logits).sum(axis=0)) - np.where(maps == 1, logits[0], logits[1])
    assert np.allclose(found, np.where(maps == 0, 0, expected), atol=1e-5)
    alone = pixel_agreement.pixel_losses(Knows(), pictures[1:2], maps[1:2])
    assert np.array_equal(alone, found[1:2])


def test_means_are_over_all_pixels_of_a_class(rng: np.random.Generator) -> None:
    pictures, maps = sample(rng)
    losses = pixel_agreement.pixel_losses(Knows(), pictures, maps)
    found = pixel_agreement.class_means(Knows(), zip(pictures, maps, strict=True), 4)
    assert found[1:3] == pytest.approx([losses[maps == k].mean() for k in (1, 2)], rel=1e-5)
    assert np.isnan(found[[0, 3]]).all()


def test_what_is_above_the_factor_contradicts(rng: np.random.Generator) -> None:
    maps = rng.integers(0, 4, (2, 9, 9), np.uint8)
    losses = rng.uniform(0, 2, maps.shape).astype(np.float32)
    means = np.array([np.nan, 0.8, 0.4, np.nan])
    wrong = pixel_agreement.disagreed(losses, maps, means, 1.25)
    assert np.array_equal(wrong, ((maps == 1) & (losses > 1.0)) | ((maps == 2) & (losses > 0.5)))
    known = (maps > 0).sum(axis=(1, 2))
    assert pixel_agreement.share_of_known(wrong, maps) == pytest.approx(wrong.sum(axis=(1, 2)) / known)
    assert pixel_agreement.share_of_known(wrong[:1] & False, maps[:1] * 0) == 0
