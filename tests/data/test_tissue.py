import numpy as np

from diffgen.data.tissue import tissue_mask
from tests.data.pictures import tissue


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
