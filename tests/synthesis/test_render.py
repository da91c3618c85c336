"""Regions of a finished canvas: all tiles, once each, with the pixels and classes of the whole."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffgen.data.slides import header
from diffgen.models import bundle
from diffgen.sampling.decode import decode_region
from diffgen.synthesis import render
from diffgen.synthesis.plan import Plan, make_plan
from tests.synthesis.helpers import settings


@pytest.fixture(scope="module")
def plan(tiny_bundle: Path) -> Plan:
    return make_plan(bundle.pack(tiny_bundle), tiny_bundle, settings(), None)


@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from([4, 8, 24]))
def test_regions_hold_every_tile_once(plan: Plan, down: int, across: int, unit: int) -> None:
    tile = unit * plan.facts.factor
    tiled, height, width = replace(plan, tile=tile), down * tile, across * tile
    found = [
        item
        for region in render.regions(tiled, height, width, range(down * across))
        for item in region.tiles.items()
    ]
    assert sorted(number for number, _ in found) == list(range(down * across))
    some = {number for number, _ in found[::3]}
    picked = [number for region in render.regions(tiled, height, width, some) for number in region.tiles]
    assert sorted(picked) == sorted(some)
    for number, (y0, x0, y1, x1) in found:
        assert (y0, x0) == (number // across * tile, number % across * tile)
        assert (y1 - y0, x1 - x0) == (tile, tile)


@given(st.integers(2, 6), st.integers(2, 6), st.integers(1, 9), st.data())
def test_a_piece_of_a_label_map_gives_the_pixels_of_the_whole(
    rows: int, columns: int, scale: int, data: st.DataObject
) -> None:
    label_map = np.random.default_rng(rows * columns).integers(0, 5, (rows, columns)).astype(np.uint8)
    whole = render.ScaledLabelMap(label_map, scale)
    spans = []
    for length in (rows * scale, columns * scale):
        start = data.draw(st.integers(0, length - 1))
        spans.append((start, data.draw(st.integers(start + 1, length))))
    picked = [np.arange(*span) for span in spans]
    piece = whole.piece(*spans)
    assert np.array_equal(piece.pixels(*picked), whole.pixels(*picked))
    assert piece.label_map.size <= label_map.size


def test_encoded_tiles_are_those_of_the_picture(plan: Plan) -> None:
    tiled = replace(plan, tile=32)
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(4, 16, 24)).astype(np.float32)
    label_map = rng.integers(0, 5, (64, 96)).astype(np.uint8)

    def enlarge(z: torch.Tensor) -> torch.Tensor:
        return z[:, :3].repeat_interleave(4, 2).repeat_interleave(4, 3).tanh()

    (region,) = render.regions(tiled, 64, 96, range(6))
    item = render.cut(tiled, latents, render.ScaledLabelMap(label_map, 1), region)
    picture = decode_region(enlarge, item.latents, item.window, item.canvas, region.box, 4, tiled.tiling)
    assert picture.shape == (64, 96, 3)
    done = render.encode(picture, item, tiled.labels, 4, 0.5)
    assert len(done) == 6
    for one in done:
        box = np.s_[one.y : one.y + 32, one.x : one.x + 32]
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(one.image))), picture[box])
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(one.mask))), label_map[box])
        assert np.allclose(one.class_shares, np.bincount(label_map[box].ravel(), minlength=5) / 32**2)


def test_a_png_says_its_scale(tmp_path: Path) -> None:
    """Viewers, QuPath and `diffgen prepare` read it."""
    path = tmp_path / "a.png"
    path.write_bytes(render.png(np.zeros((8, 8, 3), np.uint8), 0.5))
    assert header(str(path)).mpp == pytest.approx((0.5, 0.5))
