from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffgen import config
from diffgen.errors import UserError
from diffgen.labels import Labels
from diffgen.models.autoencoder import LatentCodec, LinearAutoencoder
from diffgen.models.mask_codec import GreyLatents, LabelBits, build_mask_codec, grey, num_bits
from diffgen.sampling.decode import Tiling, decode
from tests.conftest import TINY
from tests.latent_masks import blobs

maps = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 9))
IMAGES = LatentCodec(LinearAutoencoder(4, 4))


def chosen(autoencoder: str = "linear", **mask_model: object) -> config.Settings:
    over = {"mask_model": {"encoding": "latents", "factor": 2, "channels": 4} | mask_model}
    source = {"kind": autoencoder, "source": None if autoencoder == "linear" else "a hub id"}
    return config.validate(config.merge(config.merge(TINY, over), {"autoencoder": source}))


@given(maps, st.integers(10, 40))
def test_bits_are_lossless(label_map: np.ndarray, classes: int) -> None:
    """Promise 7, for the mask model's own representation."""
    codec = LabelBits(classes)
    bits = codec.encode(label_map)
    assert bits.shape == (codec.channels, *label_map.shape)
    assert set(np.unique(bits)) <= {-1.0, 1.0}
    assert np.array_equal(codec.decode(bits), label_map)
    assert np.array_equal(codec.decode(bits * 0.01), label_map)


@given(hnp.arrays(np.float32, (3, 4, 4), elements=st.floats(-3, 3, width=32)), st.integers(5, 8))
def test_any_bits_give_a_class_that_exists(bits: np.ndarray, classes: int) -> None:
    assert LabelBits(classes).decode(bits).max() < classes


@pytest.mark.parametrize(("classes", "bits"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (256, 8)])
def test_number_of_bits(classes: int, bits: int) -> None:
    assert num_bits(classes) == bits


def test_grey_levels_are_evenly_spaced() -> None:
    image = grey([np.array([[0, 1], [2, 4]], np.uint8)], 5)
    assert image.shape == (1, 3, 2, 2)
    assert image[0, 0].tolist() == [[-1.0, -0.5], [0.0, 1.0]]
    assert torch.equal(image[:, 0], image[:, 1])
    assert torch.equal(image[:, 0], image[:, 2])


@pytest.mark.parametrize("classes", [2, 3, 5, 10, 100, 256])
def test_all_channels_of_a_block_keep_every_class(classes: int) -> None:
    """As many channels as a block has pixels: the grey levels alone lose nothing, however many classes."""
    rng = np.random.default_rng(0)
    label_maps = list(rng.integers(0, classes, (8, 16, 16)).astype(np.uint8))
    names = Labels(("unknown", *(f"c{i}" for i in range(1, classes))))
    codec = build_mask_codec(chosen(), IMAGES, label_maps, names)
    for label_map in label_maps:
        assert np.array_equal(codec.decode(codec.encode(label_map)), label_map)


def test_latents_are_standard_and_regions_survive(labels: Labels) -> None:
    label_maps = blobs(40, 64, 5)
    codec = build_mask_codec(chosen(factor=8, channels=4), IMAGES, label_maps, labels)
    assert isinstance(codec, GreyLatents)
    assert (codec.channels, codec.factor) == (4, 8)
    latents = np.stack([codec.encode(label_map) for label_map in label_maps])
    assert latents.shape == (40, 4, 8, 8)
    assert latents.dtype == np.float32
    assert np.allclose(latents.mean((0, 2, 3)), 0, atol=0.15)
    assert np.allclose(latents.std((0, 2, 3)), 1, atol=0.15)
    same = np.mean([np.mean(codec.decode(z) == m) for z, m in zip(latents, label_maps, strict=True)])
    assert 0.5 < same < 1, "most of it, but greys between two classes are read as a third"


def test_a_label_map_s_latents_do_not_depend_on_others(labels: Labels) -> None:
    label_maps = blobs(8, 16, 5)
    codec = build_mask_codec(chosen(), IMAGES, label_maps, labels)
    first = codec.encode(label_maps[0])
    codec.encode(label_maps[1])
    assert np.array_equal(codec.encode(label_maps[0]), first)


@given(
    hnp.arrays(np.float32, (4, 5, 7), elements=st.floats(-100, 100, width=32)),
    st.sampled_from([1, 2, 5, 256]),
)
def test_any_latents_give_a_class_that_exists(latents: np.ndarray, classes: int) -> None:
    torch.manual_seed(0)
    codec = GreyLatents(LatentCodec(LinearAutoencoder.fit(torch.randn(4, 3, 16, 16), 2, 4)), classes)
    label_map = codec.decode(latents)
    assert label_map.shape == (10, 14)
    assert label_map.max() < classes


def test_windows_give_what_the_whole_gives(labels: Labels) -> None:
    """A linear autoencoder looks no further than its block: so windows must not show at all."""
    codec = build_mask_codec(chosen(), IMAGES, blobs(8, 16, 5), labels)
    (large,) = blobs(1, 96, 5)
    canvas = codec.encode(large)
    assert np.array_equal(codec.decode(canvas, partial(decode, how=Tiling(16, 0.25))), codec.decode(canvas))
    assert np.mean(codec.decode(canvas) == large) > 0.99


@pytest.fixture(scope="module")
def kl() -> LatentCodec:
    torch.manual_seed(0)
    return LatentCodec(
        AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            latent_channels=4,
            scaling_factor=0.5,
        ),
        [0.5] * 4,
        [2.0] * 4,
    )


def test_a_pretrained_autoencoder_is_that_of_the_images(kl: LatentCodec, labels: Labels) -> None:
    """Its weights are shared; mean and deviation are the masks' own, always measured."""
    label_maps = blobs(32, 16, 5)
    codec = build_mask_codec(chosen("kl"), kl, label_maps, labels)
    assert isinstance(codec, GreyLatents)
    assert codec.autoencoder.model is kl.model
    assert codec.autoencoder.mean != kl.mean
    latents = np.stack([codec.encode(label_map) for label_map in label_maps])
    assert np.allclose(latents.mean((0, 2, 3)), 0, atol=0.3)
    assert np.allclose(latents.std((0, 2, 3)), 1, atol=0.3)
    with pytest.raises(UserError, match=r"mask_model.factor 8, channels 4.*factor 2, 4 channels"):
        build_mask_codec(chosen("kl", factor=8), kl, label_maps, labels)


def test_bits_need_no_label_maps(labels: Labels) -> None:
    assert isinstance(build_mask_codec(chosen(encoding="bits"), IMAGES, [], labels), LabelBits)


@pytest.mark.parametrize("label_maps", [[], [np.full((16, 16), 3, np.uint8)] * 4], ids=["none", "one class"])
def test_nothing_to_measure_is_named(label_maps: list[np.ndarray], labels: Labels) -> None:
    with pytest.raises(UserError, match=r"mask_model\.encoding=latents needs label maps of two classes"):
        build_mask_codec(chosen(), IMAGES, label_maps, labels)


def test_more_channels_than_the_maps_have_are_named(labels: Labels) -> None:
    with pytest.raises(UserError, match=r"mask_model.channels 5: a block of 2² grey pixels has at most 4"):
        build_mask_codec(chosen(channels=5), IMAGES, blobs(2, 16, 5), labels)
    halves = np.kron(np.array([[1, 2], [2, 1]]), np.ones((8, 8))).astype(np.uint8)
    with pytest.raises(UserError, match=r"mask_model.channels 12: these label maps vary in 4 only"):
        build_mask_codec(chosen(factor=4, channels=12), IMAGES, [halves], labels)


def test_one_label_map_is_measured_in_all_its_turns(labels: Labels, tmp_path: Path) -> None:
    """Of vertical stripes alone, horizontal ones would be lost."""
    del tmp_path
    stripes = np.tile(np.repeat(np.array([1, 3], np.uint8), 3), (12, 2))
    codec = build_mask_codec(chosen(channels=3), IMAGES, [stripes], labels)
    for label_map in (stripes, np.ascontiguousarray(stripes.T)):
        assert np.array_equal(codec.decode(codec.encode(label_map)), label_map)
