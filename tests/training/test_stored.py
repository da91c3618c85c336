import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffgen import config
from diffgen.data.stream import PatchTable, dihedral
from diffgen.errors import UserError
from diffgen.label_maps import on_grid
from diffgen.labels import Labels
from diffgen.models.autoencoder import LatentCodec
from diffgen.sampling.decode import from_picture
from diffgen.training.latent_shards import COMPLETE, ShardEncoder, cache_key
from diffgen.training.latents import shards_of
from diffgen.training.stored import StoredCrops
from tests.data import prepared
from tests.training.test_latent_shards import kl_codec, linear_codec


def encode(data: Path, folder: Path, codec: LatentCodec, variants: int) -> Path:
    """What `latents.encode` makes, in this process."""
    latent_key = cache_key(data, codec, variants)
    folder.mkdir()
    for shard in shards_of(data):
        ShardEncoder(data, folder, codec, latent_key, 1).encode(shard, lambda _: None)
    (folder / COMPLETE).write_text(latent_key.to_json(seconds=1.0))
    return folder


@pytest.fixture(scope="module")
def data(tiny: config.Settings, labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared.make(tmp_path_factory.mktemp("data"), tiny, labels)


@pytest.fixture(scope="module")
def kl(data: Path) -> Path:
    return encode(data, data / "kl", kl_codec(), 8)


@pytest.fixture(scope="module")
def linear(data: Path) -> Path:
    return encode(data, data / "linear", linear_codec(), 8)


def whole(crops: StoredCrops, number: int) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """All variants of a patch, by crops of its whole side under many seeds."""
    found = {}
    for seed in range(60):
        variant = int(np.random.default_rng(seed).integers(8))
        found[variant] = crops.crop(number, 16, np.random.default_rng(seed))
    assert len(found) == 8
    return found


@pytest.mark.parametrize("split", ["train", "test"])
def test_all_variants_are_those_of_the_live_autoencoder(data: Path, kl: Path, split: str) -> None:
    patches, codec = PatchTable(data, "image", split), kl_codec()
    crops = StoredCrops(kl, patches, sample=False)
    for number in (1, 5):  # labelled, and not
        turns = [dihedral(patches.picture(number), v) for v in range(8)]
        expected = codec.encode(torch.from_numpy(np.stack([from_picture(turn) for turn in turns]))).numpy()
        for variant, (latents, labels) in whole(crops, number).items():
            np.testing.assert_allclose(latents, expected[variant], rtol=1e-3, atol=1e-3)
            if number == 1:
                assert np.array_equal(labels, on_grid(dihedral(patches.label_map(1), variant), 4))
            else:
                assert not labels.any()


@given(number=st.integers(0, 5), side=st.integers(1, 16), seed=st.integers(0, 2**32))
def test_a_crop_is_a_window_of_one_variant(
    data: Path, linear: Path, number: int, side: int, seed: int
) -> None:
    crops = StoredCrops(linear, PatchTable(data, "image"), sample=False)
    latents, labels = crops.crop(number, side, np.random.default_rng(seed))
    assert latents.shape == (4, side, side)
    assert labels.shape == (side, side)
    assert latents.dtype == np.float32
    mean, _, all_labels = crops.read(number, int(np.random.default_rng(seed).integers(8)))
    places = [
        (y, x)
        for y in range(17 - side)
        for x in range(17 - side)
        if np.array_equal(mean[:, y : y + side, x : x + side], latents)
        and np.array_equal(all_labels[y : y + side, x : x + side], labels)
    ]
    assert places


@given(side=st.integers(1, 16), seed=st.integers(0, 2**32), label=st.integers(1, 4))
def test_a_crop_holds_the_class_that_is_asked_for(
    data: Path, linear: Path, side: int, seed: int, label: int
) -> None:
    patches = PatchTable(data, "image")
    crops = StoredCrops(linear, patches, sample=False)
    for number in range(len(patches)):
        _, labels = crops.crop(number, side, np.random.default_rng(seed), holding=label)
        there = patches.rows[number]["labelled"] and (on_grid(patches.label_map(number), 4) == label).any()
        assert (labels == label).any() == there


def test_every_pixel_and_place_is_reached(data: Path, linear: Path) -> None:
    """Corners too: of crops of 15 of 16 pixels there are four a variant."""
    crops = StoredCrops(linear, PatchTable(data, "image"), sample=False)
    rng = np.random.default_rng(0)
    assert len({crops.crop(0, 15, rng)[0].tobytes() for _ in range(500)}) == 32


def test_same_generator_same_crop_and_others_differ(data: Path, kl: Path) -> None:
    crops = StoredCrops(kl, PatchTable(data, "image"), sample=True)
    first, again, other = (crops.crop(1, 8, np.random.default_rng(seed))[0] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_samples_have_the_stored_mean_and_deviation(data: Path, kl: Path) -> None:
    patches = PatchTable(data, "image")
    drawn, mode = (StoredCrops(kl, patches, sample=sample) for sample in (True, False))
    mean, log_deviation, _ = drawn.read(2, 5)
    assert log_deviation is not None
    assert np.array_equal(mode.read(2, 5)[0], mean)
    assert mode.read(2, 5)[1] is None
    rng = np.random.default_rng(0)
    samples = [drawn.crop(2, 16, rng)[0] for _ in range(800)]
    # All variants together: each latent pixel of a turn has its own mean, so compare what no turn changes.
    moments = [drawn.read(2, variant)[:2] for variant in range(8)]
    squares = [np.square(m.astype(float)) + np.exp(2 * d.astype(float)) for m, d in moments if d is not None]
    assert np.square(samples).mean() == pytest.approx(np.mean(squares), rel=0.02)


def test_of_latents_that_do_not_vary_a_sample_is_the_mode(data: Path, linear: Path) -> None:
    patches = PatchTable(data, "image")
    pair = [StoredCrops(linear, patches, s).crop(0, 8, np.random.default_rng(1))[0] for s in (True, False)]
    assert np.array_equal(*pair)


def test_one_variant_is_never_turned(data: Path) -> None:
    folder = encode(data, data / "one", linear_codec(), 1)
    crops = StoredCrops(folder, PatchTable(data, "image"), sample=False)
    rng = np.random.default_rng(0)
    assert len({crops.crop(0, 16, rng)[0].tobytes() for _ in range(20)}) == 1


def test_threads_and_pickles_read_the_same(data: Path, linear: Path) -> None:
    crops = StoredCrops(linear, PatchTable(data, "image"), sample=False)
    copy = pickle.loads(pickle.dumps(crops))

    def read(seed: int) -> bytes:
        return copy.crop(seed % 6, 8, np.random.default_rng(seed))[0].tobytes()

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(read, range(200)))
    alone = [crops.crop(seed % 6, 8, np.random.default_rng(seed))[0].tobytes() for seed in range(200)]
    assert together == alone


def test_crops_are_stacked(data: Path, linear: Path) -> None:
    crops = StoredCrops(linear, PatchTable(data, "image"), sample=False)
    rng = np.random.default_rng(0)
    cut = [crops.crop(k, 8, rng)[0] for k in range(3)]
    batch = crops.encode(cut)
    assert batch.dtype == torch.float32
    assert np.array_equal(batch.numpy(), np.stack(cut))


def test_folders_that_do_not_fit_are_refused(
    data: Path, linear: Path, tiny: config.Settings, labels: Labels, tmp_path: Path
) -> None:
    patches = PatchTable(data, "image")
    with pytest.raises(UserError, match="no complete latents"):
        StoredCrops(tmp_path, patches, False)
    (tmp_path / COMPLETE).write_text("{}")
    with pytest.raises(UserError, match="no complete latents"):
        StoredCrops(tmp_path, patches, False)
    other = prepared.make(tmp_path / "other", tiny, labels, images=5)
    with pytest.raises(UserError, match="of other data"):
        StoredCrops(linear, PatchTable(other, "image"), False)


def test_damage_is_found_when_it_is_read(data: Path, linear: Path, kl: Path, tmp_path: Path) -> None:
    name, patches, rng = "image-train-000000.arrow", PatchTable(data, "image"), np.random.default_rng(0)
    folder = Path(shutil.copytree(linear, tmp_path / "copy"))
    with pytest.raises(UserError, match="16 × 16 latent pixels, a crop 17"):
        StoredCrops(folder, patches, False).crop(0, 17, rng)
    table = pa.ipc.open_file(pa.memory_map(str(folder / name))).read_all()
    short = [value.as_py()[:-1] for value in table["label_map"]]
    place = table.column_names.index("label_map")
    table = table.set_column(place, table.schema.field(place), pa.array(short, pa.binary()))
    (folder / name).unlink()
    with pa.ipc.new_file(folder / name, table.schema) as file:
        file.write_table(table)
    with pytest.raises(UserError, match="is damaged"):
        StoredCrops(folder, patches, False).read(0, 0)
    shutil.copy(kl / name, folder / name)
    with pytest.raises(UserError, match="is not of the latents"):
        StoredCrops(folder, patches, False).crop(0, 8, rng)
    (folder / name).write_bytes(b"ARROW1")
    with pytest.raises(UserError, match="cannot be read"):
        StoredCrops(folder, patches, False).crop(0, 8, rng)
    (folder / name).unlink()
    with pytest.raises(UserError, match="cannot be read"):
        StoredCrops(folder, patches, False).crop(0, 8, rng)
