from pathlib import Path

import numpy as np

from diffgen import config
from diffgen.data.stream import PatchTable
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.training.samples import COUNT, held_out_maps, image_grid, mask_grid
from tests import latent_masks
from tests.data import prepared


def test_grids(tiny: config.Settings, labels: Labels, tiny_bundle: Path, tmp_path: Path) -> None:
    folder = prepared.make(tmp_path, tiny, labels)
    loaded = bundle.load(tiny_bundle)
    assert loaded.image_unet is not None
    assert loaded.mask_unet is not None
    maps = held_out_maps(PatchTable(folder, "image", "test"), tiny.image_patch_px)
    assert len(maps) == COUNT
    grid = image_grid(loaded.image_unet, loaded, maps, tiny)
    assert grid.shape == (64, 8 * 32, 3)
    assert np.array_equal(grid[:32, :32], labels.paint(maps[0]))
    again = image_grid(loaded.image_unet, loaded, maps, tiny)
    assert np.array_equal(grid, again), "fixed seeds"
    assert mask_grid(loaded.mask_unet, loaded, tiny).shape == (2 * 32, 4 * 32, 3)


def test_a_grid_of_masks_that_are_latents(labels: Labels, tmp_path: Path) -> None:
    """As large as one of bits would be, or a mask pixel a pixel: here 8 latent pixels of two, twice."""
    loaded = bundle.load(latent_masks.make(tmp_path, labels))
    assert loaded.mask_unet is not None
    grid = mask_grid(loaded.mask_unet, loaded, latent_masks.settings())
    assert grid.shape == (2 * 32, 4 * 32, 3)
    assert {tuple(colour) for colour in grid.reshape(-1, 3).tolist()} <= set(labels.colours)
    assert np.array_equal(grid, mask_grid(loaded.mask_unet, loaded, latent_masks.settings()))


def test_without_labels_the_maps_are_unknown(tiny: config.Settings, labels: Labels, tmp_path: Path) -> None:
    folder = prepared.make(tmp_path, tiny, labels, images=2, unlabelled=2)
    maps = held_out_maps(PatchTable(folder, "image"), 32)
    assert not np.any(maps)
