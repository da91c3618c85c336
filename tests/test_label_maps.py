"""From a PNG to the latent grid."""

import io

import numpy as np
import pytest
from PIL import Image

from diffgen.errors import UserError
from diffgen.label_maps import on_grid, read_png


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def test_latent_grid_takes_block_centres() -> None:
    label_map = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert on_grid(label_map, 4).tolist() == [[18, 22], [50, 54]]
    assert np.array_equal(on_grid(label_map, 1), label_map)


def test_a_palettes_indices_are_the_ids() -> None:
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = Image.fromarray(ids).convert("L")
    image.putpalette([255 - value for value in range(256) for _ in range(3)])
    assert np.array_equal(read_png(png(image), "a.png"), ids)


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (Image.new("RGB", (2, 2)), "a.png: a label map has one channel and class ids up to 255, not RGB"),
        (Image.fromarray(np.full((2, 2), 256, np.uint16)), "class ids up to 255, not I;16"),
    ],
)
def test_what_is_no_label_map_is_named(image: Image.Image, why: str) -> None:
    with pytest.raises(UserError, match=why):
        read_png(png(image), "a.png")


def test_a_cut_off_file_is_named() -> None:
    with pytest.raises(UserError, match=r"a\.png: not a readable PNG"):
        read_png(png(Image.new("L", (64, 64)))[:40], "a.png")
