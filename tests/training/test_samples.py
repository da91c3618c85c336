from pathlib import Path

import numpy as np

from diffgen import config
from diffgen.data.stream import Patches
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.training.samples import COUNT, held_out, image_grid, mask_grid
from tests.data import prepared


def test_grids(tiny: config.Settings, labels: Labels, tiny_bundle: Path, tmp_path: Path) -> None:
    folder = prepared.make(tmp_path, tiny, labels)
    loaded = bundle.load(tiny_bundle)
    assert loaded.image_unet is not None
    assert loaded.mask_unet is not None
    maps = held_out(Patches(folder, "image", "test"), tiny.image_patch_px)
    assert len(maps) == COUNT
    grid = image_grid(loaded.image_unet, loaded, maps, tiny)
    assert grid.shape == (64, 8 * 32, 3)
    assert np.array_equal(grid[:32, :32], labels.paint(maps[0]))
    again = image_grid(loaded.image_unet, loaded, maps, tiny)
    assert np.array_equal(grid, again), "fixed seeds"
    assert mask_grid(loaded.mask_unet, loaded, tiny).shape == (2 * 32, 4 * 32, 3)


def test_without_labels_the_maps_are_unknown(tiny: config.Settings, labels: Labels, tmp_path: Path) -> None:
    folder = prepared.make(tmp_path, tiny, labels, images=2, unlabelled=2)
    maps = held_out(Patches(folder, "image"), 32)
    assert not np.any(maps)
