from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from diffgen.data.focus import blurred
from diffgen.data.slides import Slide, open_slide
from diffgen.data.tissue import TISSUE_UM, Mask, tissue_mask
from tests.data.pictures import save_image, save_slide, tissue

REAL = Path(__file__).parents[2] / "../shared/data/slides/cmu_small_region.svs"


def nuclei(side: int) -> NDArray[np.uint8]:
    """Stroma with nuclei of some 6 µm, at 1 µm per pixel: detail of all sizes everywhere."""
    rng = np.random.default_rng(0)
    inside = gaussian_filter(rng.normal(size=(side, side)), 2.0) > 0.08
    picture = np.where(inside[..., None], (80, 50, 120), (232, 150, 185))
    return (picture + rng.integers(-3, 4, picture.shape)).astype(np.uint8)


def soft(picture: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    return np.dstack([gaussian_filter(picture[..., n], sigma) for n in range(3)])


def look(path: Path) -> tuple[Slide, Mask, Mask]:
    slide, _ = open_slide(str(path), 1.0)
    mask = tissue_mask(slide.read(0, 0, *slide.size(TISSUE_UM), TISSUE_UM), TISSUE_UM)
    return slide, mask, blurred(slide, mask)


def test_a_region_out_of_focus_is_found_and_no_other(tmp_path: Path) -> None:
    picture = nuclei(1600)
    picture[400:900, 500:1200] = soft(picture, 4)[400:900, 500:1200]
    _, mask, found = look(save_slide(tmp_path / "a.tif", picture, 1.0))
    assert found.shape == mask.shape
    assert found[62:100, 75:137].all()
    outside = np.ones_like(found)
    outside[50:113, 62:150] = False
    assert not found[outside].any()


def test_a_slide_in_focus_a_small_picture_and_a_coarse_one_have_none(tmp_path: Path) -> None:
    assert not look(save_slide(tmp_path / "sharp.tif", nuclei(1200), 1.0))[2].any()
    assert not look(save_slide(tmp_path / "small.tif", soft(nuclei(250), 4), 1.0))[2].any()
    coarse = nuclei(1200)
    coarse[:600] = soft(coarse, 4)[:600]
    assert not look(save_slide(tmp_path / "coarse.tif", coarse, 2.0))[2].any()


def test_glass_is_not_out_of_focus(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.png", np.full((900, 900, 3), 240, np.uint8))
    assert not look(path)[2].any()
    assert not look(save_image(tmp_path / "b.png", tissue(900, 900)))[2].any()


@pytest.mark.skipif(not REAL.exists(), reason="needs the real slide in ../shared/data")
def test_a_real_slide_in_focus_is_kept_and_a_blurred_half_is_not(tmp_path: Path) -> None:
    slide, mask, found = look(REAL)
    assert not found.any()
    picture = slide.read(0, 0, *slide.size(slide.mpp[0]), slide.mpp[0]).copy()
    half = picture.shape[0] // 2
    picture[half:] = soft(picture, 8)[half:]
    _, mask, found = look(save_slide(tmp_path / "a.tif", picture, slide.mpp[0]))
    middle = mask.shape[0] // 2
    assert found[middle + 12 :].sum() > 0.7 * mask[middle + 12 :].sum()
    assert not found[: middle - 12].any()
