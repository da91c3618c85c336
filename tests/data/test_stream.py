import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffgen import config
from diffgen.data.stream import PatchTable, crop, dihedral, statistics
from diffgen.errors import UserError
from diffgen.labels import Labels
from tests.data import prepared


@pytest.fixture(scope="module")
def folder(tiny: config.Settings, labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared.make(tmp_path_factory.mktemp("data"), tiny, labels)


def test_reads_what_the_tar_holds(folder: Path) -> None:
    patches = PatchTable(folder, "image")
    with tarfile.open(folder / "image-train-000000.tar") as tar:
        for number in (3, 0, 3, 1):
            for extension, read in (("png", patches.picture), ("mask.png", patches.label_map)):
                stream = tar.extractfile(f"{number:09d}.{extension}")
                assert stream is not None
                assert np.array_equal(read(number), np.asarray(Image.open(stream)))


def test_labelled_unlabelled_and_by_class(folder: Path) -> None:
    patches = PatchTable(folder, "image")
    assert patches.labelled.tolist() == [0, 1, 2, 3]
    assert patches.unlabelled.tolist() == [4, 5]
    assert 0 not in patches.by_class
    for class_id, numbers in patches.by_class.items():
        for number in patches.labelled:
            assert (class_id in patches.label_map(int(number))) == (number in numbers)


def test_what_is_smaller_than_a_crop_is_not_drawn(folder: Path) -> None:
    patches = PatchTable(folder, "image", "test", least=64)
    assert len(patches) == 6, "numbers stay those of the stored patches"
    assert patches.drawn.tolist() == [1, 2, 3, 4, 5]
    assert (patches.labelled.tolist(), patches.unlabelled.tolist()) == ([1, 2, 3], [4, 5])
    assert not any(0 in numbers for numbers in patches.by_class.values())
    assert len(PatchTable(folder, "image", "test", least=48).drawn) == 6


def test_splits_and_kinds_are_apart(folder: Path) -> None:
    assert len(PatchTable(folder, "image")) == 6
    assert len(PatchTable(folder, "mask")) == 4
    train, test = PatchTable(folder, "mask"), PatchTable(folder, "mask", "test")
    assert {row["shard"] for row in train.rows}.isdisjoint(row["shard"] for row in test.rows)


def test_cache_forgets_and_stays_right(folder: Path) -> None:
    small, large = PatchTable(folder, "image", cache_mb=0), PatchTable(folder, "image", cache_mb=64)
    for number in (0, 1, 0, 2, 1):
        assert np.array_equal(small.picture(number), large.picture(number))
    assert not small._cache
    assert len(large._cache) == 3
    assert not pickle.loads(pickle.dumps(large))._cache


def test_no_prepared_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no prepared data"):
        PatchTable(tmp_path, "image")
    with pytest.raises(UserError, match="holds no prepared data"):
        statistics(tmp_path)


def test_crops_keep_picture_and_labels_together() -> None:
    label_map = np.arange(144, dtype=np.uint8).reshape(12, 12)
    picture = np.repeat(label_map[..., None], 3, axis=2)
    seen = set()
    for seed in range(60):
        cut, labels = crop(picture, label_map, 5, np.random.default_rng(seed))
        assert cut.shape == (5, 5, 3)
        assert np.array_equal(cut[..., 0], labels)
        seen.add(labels.tobytes())
    assert len(seen) > 40


def test_crops_hold_the_class_that_is_asked_for() -> None:
    label_map = np.zeros((20, 30), np.uint8)
    label_map[19, 4] = label_map[0, 29] = 3
    picture = np.zeros((20, 30, 3), np.uint8)
    for seed in range(40):
        _, labels = crop(picture, label_map, 8, np.random.default_rng(seed), holding=3)
        assert (labels == 3).any()


def test_eight_different_turns() -> None:
    array = np.arange(9, dtype=np.uint8).reshape(3, 3)
    assert len({dihedral(array, turn).tobytes() for turn in range(8)}) == 8
    assert np.array_equal(dihedral(array, 0), array)


def test_without_labels_all_is_unknown() -> None:
    _, labels = crop(np.zeros((8, 8, 3), np.uint8), None, 4, np.random.default_rng(0))
    assert labels.shape == (4, 4)
    assert not labels.any()
