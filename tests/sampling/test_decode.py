from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgen.sampling.decode import decode, from_picture, tiles, to_picture, weights


@given(st.integers(1, 200), st.integers(1, 64), st.floats(0, 0.5), st.integers(1, 8))
def test_weights_sum_to_one_everywhere(length: int, tile: int, overlap: float, factor: int) -> None:
    spans = tiles(length, tile, overlap)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    total = np.zeros(length * factor)
    for (a, b), window in zip(spans, weights(length, spans, factor), strict=True):
        total[a * factor : b * factor] += window
    assert np.allclose(total, 1, atol=1e-6)


@given(st.integers(2, 300), st.integers(4, 64))
def test_tiles_overlap_as_asked(length: int, tile: int) -> None:
    spans = tiles(length, tile, 0.25)
    for (_, end), (start, _) in pairwise(spans):
        assert end - start >= min(tile, length) * 0.25 - 1


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 40), st.integers(3, 40))
def test_a_pixelwise_decoder_gives_the_whole(height: int, width: int) -> None:
    """Where tiles agree, tiling changes nothing: no band, no jump, one tile or many."""
    latents = np.random.default_rng(0).uniform(-1, 1, (3, height, width)).astype(np.float32)

    def nearest(z: torch.Tensor) -> torch.Tensor:
        return z.repeat_interleave(2, -1).repeat_interleave(2, -2)

    whole = to_picture(nearest(torch.from_numpy(latents)).numpy())
    tiled = decode(nearest, latents, 2, 8, 0.25)
    assert np.abs(whole.astype(int) - tiled.astype(int)).max() <= 1


def test_tiles_that_disagree_are_blended_without_a_jump() -> None:
    """A decoder that shifts each tile's tone by turns: the steps between pixels stay small."""
    turn = iter(range(100))

    def moody(z: torch.Tensor) -> torch.Tensor:
        return torch.full((1, 3, *z.shape[-2:]), 0.2 * (next(turn) % 2))

    picture = decode(moody, np.zeros((3, 16, 80), np.float32), 1, 16, 0.5)
    assert np.abs(np.diff(picture.astype(int), axis=1)).max() <= 5
    assert np.ptp(picture) > 20


def test_pictures_round_trip() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    assert np.array_equal(to_picture(from_picture(picture)), picture)
    assert to_picture(np.full((3, 1, 1), 9.0, np.float32)).tolist() == [[[255, 255, 255]]]
    assert from_picture(picture).dtype == np.float32


@pytest.mark.parametrize("length", [1, 5, 64, 65])
def test_few_tiles(length: int) -> None:
    assert len(tiles(length, 64, 0.25)) == (1 if length <= 64 else 2)
