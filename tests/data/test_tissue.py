from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffgen.data.tissue import Mask, not_tissue, tissue_mask
from diffgen.labels import Picture
from tests.data.pictures import tissue

REAL = Path(__file__).parents[2] / "../shared/data"


def test_glass_is_none_and_stroma_is_tissue() -> None:
    mask = tissue_mask(tissue(160, 120), 8.0)
    assert not mask[:, :19].any()
    assert mask[:, 21:].all()


def test_white_is_empty_and_a_picture_without_glass_is_full() -> None:
    rng = np.random.default_rng(0)
    white = rng.integers(236, 256, (60, 60, 3)).astype(np.uint8)
    assert not tissue_mask(white, 8.0).any()
    assert not tissue_mask(np.full((20, 20, 3), 255, np.uint8), 8.0).any()
    assert tissue_mask(tissue(160, 120)[:, 24:], 8.0).all()
    assert tissue_mask(np.full((20, 20, 3), 120, np.uint8), 8.0).all()


def test_specks_are_dust_and_small_holes_are_tissue() -> None:
    picture = np.full((100, 100, 3), 245, np.uint8)
    picture[5:7, 5:7] = 60
    picture[30:90, 30:90] = (200, 100, 160)
    picture[50:53, 50:53] = 245
    expected = np.zeros((100, 100), bool)
    expected[30:90, 30:90] = True
    np.testing.assert_array_equal(tissue_mask(picture, 8.0), expected)


def _with_stroke(colour: tuple[int, int, int], width: int = 20) -> tuple[Picture, Mask]:
    """Tissue on glass at 8 µm, and a stroke of a pen across both."""
    picture = tissue(200, 120)
    stroke = np.zeros((120, 200), np.bool_)
    stroke[40 : 40 + width] = True
    noise = np.random.default_rng(1).integers(-4, 5, (120, 200, 3))
    inked = np.where(stroke[..., None], np.asarray(colour) + noise, picture)
    return inked.clip(0, 255).astype(np.uint8), stroke


@pytest.mark.parametrize(
    "colour", [(20, 110, 60), (30, 60, 160), (60, 90, 200), (0, 130, 140), (35, 32, 36), (60, 58, 62)]
)
def test_a_pen_is_no_tissue(colour: tuple[int, int, int]) -> None:
    picture, stroke = _with_stroke(colour)
    mask = tissue_mask(picture, 8.0)
    assert mask[stroke].mean() < 0.01
    assert mask[:38, 26:].all()
    assert mask[62:, 26:].all()
    assert not_tissue(picture, 8.0) == {"pen": pytest.approx(stroke.mean(), abs=0.03)}


@pytest.mark.parametrize(
    "colour", [(80, 50, 120), (60, 45, 110), (232, 150, 185), (150, 20, 40), (70, 70, 140), (90, 60, 45)]
)
def test_stains_blood_and_pigment_are_no_ink(colour: tuple[int, int, int]) -> None:
    picture, stroke = _with_stroke(colour)
    assert not_tissue(picture, 8.0) == {}
    assert tissue_mask(picture, 8.0)[stroke].all()


def test_thin_dark_lines_are_no_pen() -> None:
    assert not_tissue(_with_stroke((35, 32, 36), width=2)[0], 8.0) == {}


@pytest.mark.parametrize("level", [0, 6])
def test_black_is_where_nothing_was_scanned(level: int) -> None:
    picture = tissue(200, 120)
    picture[:, 150:] = level
    mask = tissue_mask(picture, 8.0)
    assert not mask[:, 150:].any()
    assert mask[:, 26:148].all()
    assert not_tissue(picture, 8.0)["black"] == pytest.approx(0.25, abs=0.02)
    assert not tissue_mask(np.zeros((40, 40, 3), np.uint8), 8.0).any()


@pytest.mark.skipif(not REAL.exists(), reason="needs the real pictures in ../shared/data")
def test_nothing_of_real_tissue_is_ink_or_black() -> None:
    """Every 20th picture; docs/slides.md has the figures of all."""
    files = sorted(REAL.glob("*/images/*.jpg"))[::20]
    assert len(files) > 50
    for file in files:
        with Image.open(file) as image:
            small = image.convert("RGB").reduce(8)
        assert not_tissue(np.asarray(small), 8.0) == {}, file.name
