import json
import re
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from PIL import Image

from diffgen import config
from diffgen.data.stream import PatchTable, dihedral
from diffgen.errors import UserError
from diffgen.label_maps import on_grid
from diffgen.labels import Labels
from diffgen.models.autoencoder import LatentCodec, LinearAutoencoder
from diffgen.sampling.decode import from_picture
from diffgen.training import latent_shards
from diffgen.training.latent_shards import META, LatentCacheKey, LatentShard, ShardEncoder, cache_key
from diffgen.training.latents import shards_of
from tests.data import prepared

MEAN, DEVIATION = [0.1, -0.2, 0.3, 0.0], [0.5, 2.0, 1.0, 0.8]


def kl_codec() -> LatentCodec:
    """Factor 4, random weights, with a standardisation of its own."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    model = AutoencoderKL(**blocks, block_out_channels=(8, 8, 8), norm_num_groups=4, latent_channels=4)
    return LatentCodec(model, MEAN, DEVIATION)


def tiny_codec() -> LatentCodec:
    torch.manual_seed(0)
    widths, blocks = (8, 8, 8), (1, 1, 1)
    model = AutoencoderTiny(
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        num_encoder_blocks=blocks,
        num_decoder_blocks=blocks,
        latent_channels=4,
    )
    return LatentCodec(model, MEAN, DEVIATION)


def linear_codec() -> LatentCodec:
    torch.manual_seed(0)
    return LatentCodec(LinearAutoencoder.fit(torch.rand(2, 3, 64, 64) * 2 - 1, 4, 4), MEAN, DEVIATION)


@pytest.fixture(scope="module")
def data(tiny: config.Settings, labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared.make(tmp_path_factory.mktemp("data"), tiny, labels)


def encode(
    data: Path, folder: Path, codec: LatentCodec, variants: int = 8, shard: int = 0
) -> tuple[pa.Table, LatentCacheKey]:
    latent_key = cache_key(data, codec, variants)
    shard_ = shards_of(data)[shard]
    ShardEncoder(data, folder, codec, latent_key, readers=2).encode(shard_, lambda _: None)
    return pa.ipc.open_file(pa.memory_map(str(folder / shard_.file))).read_all(), latent_key


@pytest.mark.parametrize("make", [kl_codec, tiny_codec, linear_codec])
def test_moments_begin_with_what_encode_gives(make: Callable[[], LatentCodec]) -> None:
    codec, images = make(), torch.rand(2, 3, 32, 40) * 2 - 1
    moments = codec.moments(images)
    assert moments.shape == (2, 8 if codec.varies else 4, 8, 10)
    assert torch.equal(moments[:, :4], codec.encode(images))


def test_log_deviation_is_that_of_standardised_samples() -> None:
    codec, images = kl_codec(), torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        found = codec.model.encode(images).latent_dist
        torch.manual_seed(1)
        raw = torch.cat([found.sample() for _ in range(4000)])
    own = (raw * codec.scale - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(DEVIATION).view(-1, 1, 1)
    torch.testing.assert_close(own.std(0), codec.moments(images)[0, 4:].exp(), rtol=0.06, atol=0)


@pytest.mark.parametrize("make", [kl_codec, tiny_codec, linear_codec])
def test_a_row_is_what_the_autoencoder_gives_of_the_turned_patch(
    data: Path, tmp_path: Path, make: Callable[[], LatentCodec]
) -> None:
    codec, patches = make(), PatchTable(data, "image")
    file, latent_key = encode(data, tmp_path, codec)
    assert file.num_rows == len(patches) * 8
    for i in range(file.num_rows):
        (row,) = file.slice(i, 1).to_pylist()
        number, variant = divmod(i, 8)
        assert (row["number"], row["variant"]) == (number, variant)
        assert (row["source"], row["split"]) == (patches.rows[number]["source"], "train")
        turned = dihedral(patches.picture(number), variant)
        expected = codec.encode(torch.from_numpy(from_picture(turned))[None])[0].numpy()
        found = np.frombuffer(row["moments"], "<f2").reshape(latent_key.planes, row["height"], row["width"])
        np.testing.assert_allclose(found[:4].astype(np.float32), expected, rtol=1e-3, atol=1e-3)
        labels = np.frombuffer(row["label_map"], np.uint8).reshape(row["height"], row["width"])
        if patches.rows[number]["labelled"]:
            assert np.array_equal(labels, on_grid(dihedral(patches.label_map(number), variant), 4))
        else:
            assert not labels.any()


def test_variants_differ_but_for_the_turn_of_a_linear_autoencoder(data: Path, tmp_path: Path) -> None:
    file, _ = encode(data, tmp_path, kl_codec())
    plain, turned = (np.frombuffer(file["moments"][i].as_py(), "<f2").reshape(8, 16, 16) for i in (0, 4))
    assert np.abs(plain[:, ::-1].astype(float) - turned).max() > 0.01  # why a flip is encoded, not flipped


def test_one_variant_and_the_facts_in_the_schema(data: Path, tmp_path: Path) -> None:
    file, latent_key = encode(data, tmp_path, linear_codec(), variants=1)
    assert file.num_rows == 6
    assert LatentCacheKey.from_json(file.schema.metadata[META].decode()) == latent_key
    assert latent_key.moments == ("mean",)
    assert cache_key(data, kl_codec(), 8).moments == ("mean", "log_deviation")


def test_shards_of_both_splits_and_the_same_bytes_again(data: Path, tmp_path: Path) -> None:
    assert [(s.file, s.split) for s in shards_of(data)] == [
        ("image-train-000000.arrow", "train"),
        ("image-test-000000.arrow", "test"),
    ]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        encode(data, tmp_path / name, linear_codec(), shard=1)
    first, second = ((tmp_path / name / "image-test-000000.arrow").read_bytes() for name in ("a", "b"))
    assert first == second


def test_identity_follows_all_that_the_numbers_depend_on(
    data: Path, tiny: config.Settings, labels: Labels, tmp_path: Path
) -> None:
    codec, other, moved = linear_codec(), linear_codec(), linear_codec()
    other.model.analysis.data[0, 0, 0, 0] += 1e-3
    moved.mean = [0.0] * 4
    fewer = prepared.make(tmp_path / "fewer", tiny, labels, images=5)
    names = [
        cache_key(where, what, variants).identity
        for where, what, variants in (
            (data, codec, 8), (data, codec, 1), (data, other, 8), (data, moved, 8), (fewer, codec, 8)
        )
    ]  # fmt: skip
    assert len(set(names)) == 5
    assert cache_key(data, linear_codec(), 8).identity == names[0]


def test_sides_that_differ_and_do_not_divide(
    tiny: config.Settings, labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patches of 38 × 50 and 64 × 64 pixels by turns, batches of few pixels: each row as if alone."""
    place = prepared.make(tmp_path / "odd", tiny, labels, images=4, unlabelled=1)
    _crop_members(place / "image-train-000000.tar", {"000000000", "000000002"}, 38, 50)
    monkeypatch.setattr(latent_shards, "BATCH_PIXELS", {"cpu": 3 * 64 * 64})
    codec, patches = kl_codec(), PatchTable(place, "image")
    file, latent_key = encode(place, tmp_path, codec)
    for i in range(file.num_rows):
        (row,) = file.slice(i, 1).to_pylist()
        number, variant = divmod(i, 8)
        whole = patches.picture(number)
        whole = whole[: whole.shape[0] // 4 * 4, : whole.shape[1] // 4 * 4]
        expected = codec.encode(torch.from_numpy(from_picture(dihedral(whole, variant)))[None])[0].numpy()
        assert expected.shape[1:] == (row["height"], row["width"])
        found = np.frombuffer(row["moments"], "<f2").reshape(latent_key.planes, *expected.shape[1:])
        np.testing.assert_allclose(found[:4].astype(np.float32), expected, rtol=1e-3, atol=1e-3)


def _crop_members(shard: Path, keys: set[str], height: int, width: int) -> None:
    with tarfile.open(shard) as tar:
        members = [(info.name, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]  # all are files
    with tarfile.open(shard, "w") as tar:
        for name, content in members:
            if name.split(".")[0] in keys and name.endswith("png"):
                content = prepared._png(np.asarray(Image.open(BytesIO(content)))[:height, :width])
            prepared._add(tar, name, content)


def test_an_interrupted_write_leaves_no_file(data: Path, tmp_path: Path) -> None:
    codec = linear_codec()
    latent_key, (shard, _) = cache_key(data, codec, 8), shards_of(data)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ShardEncoder(data, tmp_path, codec, latent_key, 1).encode(shard, stop)
    assert not list(tmp_path.iterdir())


def test_what_is_wrong_with_a_shard_is_named(data: Path, tmp_path: Path) -> None:
    codec = linear_codec()
    latent_key, (shard, _) = cache_key(data, codec, 1), shards_of(data)
    encoder = ShardEncoder(data, tmp_path, codec, latent_key, 1)
    more = LatentShard(shard.name, "train", [*shard.patches, ("000000099", "s", False, 4096)])
    with pytest.raises(UserError, match="000000099"):
        encoder.encode(more, lambda _: None)
    with pytest.raises(UserError, match=r"absent\.tar"):
        encoder.encode(LatentShard("absent.tar", "train", shard.patches), lambda _: None)
    codec.deviation[0] = 1e-9
    with pytest.raises(UserError, match=r"patch 000000000 of image-train-000000\.tar is not finite"):
        encoder.encode(shard, lambda _: None)
    assert not list(tmp_path.iterdir())


def test_tells_of_each_image_once(data: Path, tmp_path: Path) -> None:
    codec, told = linear_codec(), list[int]()
    ShardEncoder(data, tmp_path, codec, cache_key(data, codec, 8), 2).encode(shards_of(data)[0], told.append)
    assert sum(told) == 6 * 8


def test_facts_travel() -> None:
    latent_key = LatentCacheKey(1, "a", "b", 4, 4, ("mean", "log_deviation"), 8)
    assert LatentCacheKey.from_json(latent_key.to_json(seconds=1.5)) == latent_key
    assert json.loads(latent_key.to_json(seconds=1.5))["seconds"] == 1.5
    assert latent_key.planes == 8
    assert re.fullmatch("[0-9a-f]{12}", latent_key.identity)
