"""Tiles are the crops of whole images, and samples of their own."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffgen.errors import UserError
from tests.synthesis.helpers import run, shard_hashes
from tests.synthesis.test_driver import members

TILES = {"emit": "tiles", "tile": 32, "size": "96x64", "images_per_shard": 4}


def picture(files: dict[str, bytes], name: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(files[name])))


def test_tiles_are_crops_of_the_whole(tiny_bundle: Path, tmp_path: Path) -> None:
    run(tiny_bundle, tmp_path / "whole", n=2, size="96x64")
    run(tiny_bundle, tmp_path / "tiles", n=2, **TILES)
    whole, tiles = members(tmp_path / "whole"), members(tmp_path / "tiles")
    records = [json.loads(data) for name, data in tiles.items() if name.endswith(".json")]
    assert [record["index"] for record in records] == list(range(12))
    for record in records:
        y, x, parent = record["y"], record["x"], record["parent"]
        assert parent == {"index": record["index"] // 6, "height": 64, "width": 96}
        for kind in ("png", "mask.png"):
            crop = picture(whole, f"{parent['index']:09d}.{kind}")[y : y + 32, x : x + 32]
            assert np.array_equal(picture(tiles, f"{record['index']:09d}.{kind}"), crop)
    assert len({(r["parent"]["index"], r["y"], r["x"]) for r in records}) == 12
    cards = [(tmp_path / name / "README.md").read_text() for name in ("whole", "tiles")]
    assert ["of which it is a tile" in card for card in cards] == [False, True]


def test_more_images_go_on_with_more_tiles(tiny_bundle: Path, tmp_path: Path) -> None:
    """A shard may end in the middle of an image; the next run paints that image again for the rest."""
    run(tiny_bundle, tmp_path / "two", n=1, **TILES)
    run(tiny_bundle, tmp_path / "two", n=2, **TILES)
    run(tiny_bundle, tmp_path / "one", n=2, **TILES)
    assert shard_hashes(tmp_path / "two") == shard_hashes(tmp_path / "one")


def test_only_what_is_missing_is_painted(tiny_bundle: Path, tmp_path: Path) -> None:
    run(tiny_bundle, tmp_path, n=2, **TILES)
    before = shard_hashes(tmp_path)
    (tmp_path / "shard-000002.tar").unlink()  # tiles 8 to 11: of the second image only
    assert run(tiny_bundle, tmp_path, n=2, **TILES).made == 1
    assert shard_hashes(tmp_path) == before


def test_given_label_maps_of_several_sizes(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k, shape in enumerate([(32, 64), (64, 64)]):
        Image.fromarray(rng.integers(0, 5, shape).astype(np.uint8)).save(folder / f"{k}.png")
    run(tiny_bundle, tmp_path / "out", folder, n=3, **{**TILES, "size": "512"})
    records = [json.loads(d) for name, d in members(tmp_path / "out").items() if name.endswith(".json")]
    assert [record["parent"]["index"] for record in records] == [0, 0, 1, 1, 1, 1, 2, 2]


def test_a_tile_that_does_not_divide_the_image_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--tile 40: must divide the sides of all images \(96x64\)"):
        run(tiny_bundle, tmp_path, n=1, **{**TILES, "tile": 40})
