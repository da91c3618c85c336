import weakref
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from diffgen.models.conv_autoencoder import ConvAutoencoder
from diffgen.sampling.canvas import NonFiniteError
from diffgen.sampling.decode import (
    Area,
    Tiling,
    decode,
    decode_region,
    from_picture,
    redundancy,
    regions,
    tiling,
    to_picture,
    weights,
    windows,
    windows_box,
)
from diffgen.schema import Sampling

FACTOR = 2
lengths, sides, overlaps = st.integers(1, 40), st.integers(2, 24), st.floats(0, 0.5)


def moody(z: torch.Tensor) -> torch.Tensor:
    """A decoder whose windows disagree: its tone depends on all of its input, and on the place in it."""
    pixels = z[:, :3].repeat_interleave(FACTOR, -1).repeat_interleave(FACTOR, -2)
    return pixels - 0.3 * z.mean() + torch.linspace(-0.2, 0.2, pixels.shape[-1])


@st.composite
def canvases(draw: st.DrawFn) -> tuple[np.ndarray, Area]:
    """Latents of any size, and a region of them."""
    height, width, seed = draw(lengths), draw(lengths), draw(st.integers(0, 9))
    latents = np.random.default_rng(seed).normal(0, 0.5, (4, height, width)).astype(np.float32)
    y0, x0 = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return latents, (y0, x0, draw(st.integers(y0 + 1, height)), draw(st.integers(x0 + 1, width)))


@given(st.integers(1, 300), st.integers(1, 64), overlaps)
def test_windows_hold_the_axis_and_overlap_as_asked(length: int, tile: int, overlap: float) -> None:
    spans = windows(length, tile, overlap)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert len({end - start for start, end in spans}) == 1
    assert spans[0][1] <= tile
    shared = min(round(min(tile, length) * overlap), min(tile, length) - 1)
    assert all(end - start >= shared for (_, end), (start, _) in pairwise(spans))


@given(st.integers(1, 200), st.integers(1, 64), overlaps, st.integers(1, 8), st.booleans())
def test_weights_sum_to_one_everywhere(
    length: int, tile: int, overlap: float, factor: int, cut: bool
) -> None:
    spans = windows(length, tile, overlap)
    total = np.zeros(length * factor)
    for (a, b), weight in zip(spans, weights(length, spans, factor, cut), strict=True):
        assert weight.min() >= 0
        total[a * factor : b * factor] += weight
    assert np.abs(total - 1).max() < 1e-6


@pytest.mark.parametrize("length", [1, 5, 64, 65, 128])
def test_few_windows(length: int) -> None:
    assert len(windows(length, 64, 0.125)) == max(1, -(-(length - 8) // 56))


@pytest.mark.parametrize("length", range(65, 65 + 57))
def test_every_remainder_costs_little(length: int) -> None:
    """An axis a little longer than a window is not decoded twice over."""
    assert redundancy(length, 64, 0.125, [(0, length)]) < 1.3


@given(canvases(), sides, overlaps)
def test_a_region_is_that_part_of_the_whole(
    canvas: tuple[np.ndarray, Area], tile: int, overlap: float
) -> None:
    latents, region = canvas
    shape = latents.shape[1:]
    box = windows_box(shape, region, tile, overlap)
    crop = latents[:, box[0] : box[2], box[1] : box[3]]
    found = decode_region(moody, crop, box, shape, region, FACTOR, Tiling(tile, overlap))
    y0, x0, y1, x1 = (side * FACTOR for side in region)
    assert np.array_equal(found, decode(moody, latents, FACTOR, Tiling(tile, overlap))[y0:y1, x0:x1])


@settings(max_examples=30)
@given(canvases(), st.integers(4, 24), overlaps)
def test_the_whole_is_the_weighted_sum_of_its_windows(
    canvas: tuple[np.ndarray, Area], tile: int, overlap: float
) -> None:
    """As the formula says, without bands and regions; also where the canvas is narrower than a window."""
    latents, (_, height, width) = canvas[0], canvas[0].shape
    axes = [windows(length, tile, overlap) for length in (height, width)]
    plain = np.zeros((3, height * FACTOR, width * FACTOR))
    for (y0, y1), wy in zip(axes[0], weights(height, axes[0], FACTOR), strict=True):
        for (x0, x1), wx in zip(axes[1], weights(width, axes[1], FACTOR), strict=True):
            pixels = moody(torch.from_numpy(latents[None, :, y0:y1, x0:x1]))[0].numpy()
            plain[:, y0 * FACTOR : y1 * FACTOR, x0 * FACTOR : x1 * FACTOR] += wy[:, None] * wx * pixels
    off = decode(moody, latents, FACTOR, Tiling(tile, overlap)).astype(int) - to_picture(
        plain.astype(np.float32)
    )
    assert np.abs(off).max() <= 1


@given(lengths, lengths, sides, overlaps, st.integers(0, 255))
def test_a_constant_stays_a_constant(height: int, width: int, tile: int, overlap: float, level: int) -> None:
    """Up to the border of the canvas: nothing fades, nothing is counted twice."""

    def flat(z: torch.Tensor) -> torch.Tensor:
        return torch.full((1, 3, *(side * FACTOR for side in z.shape[-2:])), level / 127.5 - 1)

    picture = decode(flat, np.zeros((4, height, width), np.float32), FACTOR, Tiling(tile, overlap))
    assert picture.shape == (height * FACTOR, width * FACTOR, 3)
    assert np.unique(picture).tolist() == [level]


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40))
@settings(max_examples=25)
def test_windows_of_a_bounded_decoder_are_the_whole(height: int, width: int, tile: int) -> None:
    torch.manual_seed(0)
    model = ConvAutoencoder(3, 4, (4,), (1,), (1,)).requires_grad_(False).double()
    torch.nn.init.normal_(model.decoder[1].block[3].weight)  # zero when new

    def decoder(latents: torch.Tensor) -> torch.Tensor:
        return model.decode(latents.double()).sample

    latents = np.random.default_rng(height).normal(size=(3, height, width)).astype(np.float32)
    found = decode(decoder, latents, 4, tiling(tile, 0.125, model.reach))
    assert np.array_equal(found, to_picture(decoder(torch.from_numpy(latents)[None])[0].float().numpy()))


def test_a_decoder_without_a_bound_is_blended() -> None:
    assert tiling(96, 0.125, None) == (96, 0.125, False)
    assert tiling(96, 0.125, 10) == (96, 20 / 96, True)
    assert tiling(16, 0.125, 10) == (40, 0.5, True)


def test_windows_that_disagree_are_blended_without_a_jump() -> None:
    """A decoder that shifts each window's tone by turns: the steps between pixels stay small."""
    turn = iter(range(100))

    def by_turns(z: torch.Tensor) -> torch.Tensor:
        return torch.full((1, 3, *z.shape[-2:]), 0.2 * (next(turn) % 2))

    picture = decode(by_turns, np.zeros((3, 16, 80), np.float32), 1, Tiling(16, 0.5))
    assert np.abs(np.diff(picture.astype(int), axis=1)).max() <= 6
    assert np.ptp(picture) > 20


def test_a_window_that_is_not_finite_is_named() -> None:
    latents = np.zeros((4, 20, 40), np.float32)
    spans = windows(40, 16, 0.25)
    latents[:, 19, spans[-1][1] - 1] = np.nan
    with pytest.raises(NonFiniteError, match=rf"row 8, column {spans[-1][0]}"):
        decode(moody, latents, FACTOR, Tiling(16, 0.25))


class Live(TorchDispatchMode):
    """Counts the bytes of tensors that are alive at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and not any(made is arg for arg in args) and made._base is None:
            size = made.nbytes
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(made, self.freed, size)
        return made

    def freed(self, size: int) -> None:
        self.now -= size


def test_memory_beyond_the_result_is_flat() -> None:
    """A canvas four times as high takes no more than its larger result more."""

    def beyond(height: int) -> int:
        latents = np.zeros((1, height, 64), np.float32)
        with Live() as live:
            decode(lambda z: torch.zeros(1, 3, *(8 * n for n in z.shape[-2:])), latents, 8, Tiling(32, 0.125))
        return live.peak

    assert 0 < beyond(512) < 1.1 * beyond(128)


@given(st.integers(1, 3000), st.integers(8, 96), st.floats(0, 0.25), st.integers(1, 100))
def test_regions_hold_the_axis_in_whole_units(length: int, tile: int, overlap: float, unit: int) -> None:
    parts = regions(length, tile, overlap, unit)
    assert (parts[0][0], parts[-1][1]) == (0, length)
    assert all(end == start for (_, end), (start, _) in pairwise(parts))
    assert all(end > start and start % unit == 0 for start, end in parts)
    if len(windows(length, tile, overlap)) <= 8:
        assert len(parts) == 1


@given(st.integers(192, 5000), st.sampled_from([1, 8, 16, 32, 64]))
def test_decoding_by_region_costs_at_most_1_8_times_the_pixels(length: int, unit: int) -> None:
    """At the default window and overlap, both axes together."""
    tile, overlap = Sampling().decode_tile, Sampling().decode_overlap
    parts = regions(length, tile, overlap, unit)
    assert redundancy(length, tile, overlap, parts) ** 2 <= 1.8
    assert max(end - start for start, end in parts) <= 14 * tile


def test_redundancy_counts_what_is_decoded() -> None:
    parts, decoded = regions(200, 8, 0.25, 4), []

    def counted(z: torch.Tensor) -> torch.Tensor:
        decoded.append(z.shape[-1])
        return moody(z)

    latents = np.zeros((4, 8, 200), np.float32)
    for x0, x1 in parts:
        region = (0, x0, 8, x1)
        decode_region(counted, latents, (0, 0, 8, 200), (8, 200), region, FACTOR, Tiling(8, 0.25))
    assert len(parts) > 2
    assert sum(decoded) / 200 == redundancy(200, 8, 0.25, parts)


def test_pictures_round_trip() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    assert np.array_equal(to_picture(from_picture(picture)), picture)
    assert to_picture(np.full((3, 1, 1), 9.0, np.float32)).tolist() == [[[255, 255, 255]]]
    assert from_picture(picture).dtype == np.float32
