"""Synthesis with label maps that are sampled as latents: plan, layout, forecast and shards."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset as wds
from PIL import Image

from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.sampling.canvas import NonFiniteError
from diffgen.synthesis.forecast import forecast
from diffgen.synthesis.image_job import LabelMapJob
from diffgen.synthesis.leases import Lease
from diffgen.synthesis.plan import Plan, make_plan
from diffgen.synthesis.sampler import Sampler
from tests import latent_masks
from tests.synthesis.helpers import run, settings, shard_hashes, work


@pytest.fixture(scope="module")
def folder(labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return latent_masks.make(tmp_path_factory.mktemp("latents"), labels)


@pytest.fixture(scope="module")
def sampler(folder: Path) -> Sampler:
    return Sampler(folder, settings().sampling)


def plan(folder: Path, **synthesis: object) -> Plan:
    return make_plan(bundle.pack(folder), folder, settings(**synthesis), None)


@pytest.mark.parametrize(
    ("size", "shape"),
    [("64", (8, 8)), ("256", (8, 8)), ("260x256", (8, 9)), ("320x640", (20, 10)), ("2048", (64, 64))],
)
def test_the_mask_canvas_covers_the_image(folder: Path, size: str, shape: tuple[int, int]) -> None:
    """In latent pixels of 2 mask pixels of 16 px, rounded up; one patch of 8 at least."""
    made = plan(folder, size=size)
    assert made.mask_shape(0) == made.context_map(0).shape == shape
    assert made.model("mask").channels == 3
    assert made.model("mask").base == 8


def test_layout_decodes_cleans_and_lies_on_the_latents(sampler: Sampler) -> None:
    label_map = np.full((24, 16), 2, np.uint8)
    label_map[:, 8:] = 4
    canvas = sampler.bundle.mask_codec.encode(label_map)
    assert canvas.shape == (3, 12, 8)
    laid = work(sampler, Lease(1, "label_map", LabelMapJob(canvas, 380, 120))).result
    assert laid.label_map.shape == (24, 16)
    assert np.array_equal(laid.label_map, label_map)
    assert laid.on_latents.shape == (95, 30)
    assert set(np.unique(laid.on_latents)) == {2}, "the columns of 4 lie beyond the image"


def test_a_large_canvas_is_decoded_by_windows(sampler: Sampler, folder: Path) -> None:
    """Never more of it at once than a tile, and the label map is that of the whole."""
    made = Sampler(folder, settings().sampling)
    codec, sides = made.bundle.mask_codec, list[int]()
    (label_map,) = latent_masks.blobs(1, 128, 5)
    canvas = codec.encode(label_map)
    decode = codec.autoencoder.decode  # type: ignore[attr-defined]
    codec.autoencoder.decode = lambda z: sides.append(max(z.shape[-2:])) or decode(z)  # type: ignore[attr-defined, func-returns-value]
    made.sampling = made.sampling.model_copy(update={"min_region_um2": 0.0})
    laid = made.label_maps(LabelMapJob(canvas, 2048, 2048))
    assert np.array_equal(laid.label_map, sampler.bundle.mask_codec.decode(canvas))
    assert len(sides) > 1
    assert max(sides) <= made.sampling.decode_tile


def test_a_decoder_s_nan_never_becomes_classes(sampler: Sampler) -> None:
    """Promise 10, for the masks' autoencoder."""
    canvas = np.zeros((3, 8, 8), np.float32)
    canvas[0, 3, 3] = np.nan
    result = work(sampler, Lease(1, "label_map", LabelMapJob(canvas, 64, 64))).result
    assert isinstance(result, NonFiniteError)


def test_shards(folder: Path, tmp_path: Path) -> None:
    """Whole images, larger than a mask patch; the same bytes again, a prefix of more, and as foretold."""
    chosen: dict[str, object] = {"size": "288x32", "images_per_shard": 1}
    run(folder, tmp_path / "a", n=2, **chosen)
    run(folder, tmp_path / "b", n=1, lease=50, **chosen)
    first, second = shard_hashes(tmp_path / "a"), shard_hashes(tmp_path / "b")
    assert len(first) == 2
    assert {name: first[name] for name in second} == second
    seen = set()
    for sample in wds.WebDataset(str(tmp_path / "a" / "shard-000000.tar"), shardshuffle=False):
        mask = np.asarray(Image.open(io.BytesIO(sample["mask.png"])))
        assert mask.shape == (32, 288)
        seen |= set(np.unique(mask).tolist())
    assert len(seen) > 1
    assert max(seen) < 5
    packed = bundle.pack(folder)
    told = forecast(plan(folder, n=2, **chosen), packed, 2, 2, lambda _: None)
    assert told.exact
    assert told.forwards == sum(pq.read_table(tmp_path / "a" / "manifest.parquet")["forwards"].to_pylist())


def test_tiles_are_those_of_the_whole(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "whole", n=1, size="288x64")
    run(folder, tmp_path / "tiles", n=1, size="288x64", emit="tiles", tile=32, images_per_shard=64)
    (whole,) = wds.WebDataset(str(tmp_path / "whole" / "shard-000000.tar"), shardshuffle=False)
    large = np.asarray(Image.open(io.BytesIO(whole["mask.png"])))
    tiles = list(wds.WebDataset(str(tmp_path / "tiles" / "shard-000000.tar"), shardshuffle=False))
    assert len(tiles) == 18
    for k, sample in enumerate(tiles):
        y, x = divmod(k, 9)
        tile = np.asarray(Image.open(io.BytesIO(sample["mask.png"])))
        assert np.array_equal(tile, large[32 * y : 32 * y + 32, 32 * x : 32 * x + 32])


def test_the_masks_autoencoder_is_counted_once(sampler: Sampler, tiny_bundle: Path) -> None:
    own = sum(p.numel() for p in sampler.bundle.mask_autoencoder.parameters())  # type: ignore[union-attr]  # it has one
    assert own == 3 * 2 * 2 + 2 * 3 * 3 * 2 * 2
    total = sum(p.numel() for p in sampler.parameters())
    without = replace(sampler.bundle, mask_codec=bundle.load(tiny_bundle).mask_codec)
    sampler_without = Sampler(tiny_bundle, sampler.sampling)
    sampler_without.bundle = without
    assert total == sum(p.numel() for p in sampler_without.parameters()) + own
