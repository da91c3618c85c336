from pathlib import Path

import numpy as np
import pytest
from skimage.color import hed2rgb

from diffgen.data import stain
from diffgen.data.slides import Slide, open_slide
from diffgen.data.tissue import TISSUE_UM, tissue_mask
from tests.data.pictures import save_image, tissue


@pytest.fixture
def slide(tmp_path: Path) -> Slide:
    return open_slide(str(save_image(tmp_path / "a.png", tissue(900, 700))), 0.5)[0]


def sampled(slide: Slide) -> stain.StainSample:
    mask = tissue_mask(slide.read(0, 0, *slide.size(TISSUE_UM), TISSUE_UM), TISSUE_UM)
    return stain.sample(slide, mask)


def fitted(slide: Slide) -> stain.StainModel:
    model = stain.fit(sampled(slide).pixels)
    assert model is not None
    return model


def test_labels_follow_the_tissue(slide: Slide) -> None:
    labels = fitted(slide).label(slide, sampled(slide).strength, 0, 0, 900, 700, 0.5)
    assert labels.shape == (700, 900)
    assert (labels[:, :95] == stain.STAIN_CLASSES.index("background")).all()
    assert (labels[500:, 200:] == stain.STAIN_CLASSES.index("stroma-like")).mean() > 0.95
    assert (labels[220:340, 480:600] >= stain.STAIN_CLASSES.index("epithelium-like")).all()


def test_labels_do_not_depend_on_the_patch(slide: Slide) -> None:
    model, strength = fitted(slide), sampled(slide).strength
    whole = model.label(slide, strength, 0, 0, 900, 700, 0.5)
    for x, y, w, h in ((0, 0, 256, 256), (301, 177, 256, 200), (644, 444, 256, 256)):
        assert (model.label(slide, strength, x, y, w, h, 0.5) == whole[y : y + h, x : x + w]).mean() > 0.999


def test_the_same_slide_gives_the_same_model_in_the_same_order(slide: Slide) -> None:
    model = fitted(slide)
    assert model == fitted(slide)
    assert [h for h, _ in model.centres] == sorted(h for h, _ in model.centres)


def test_too_few_pixels_give_no_model() -> None:
    assert stain.fit(np.ones((5, 2), np.float32)) is None


def test_the_class_is_not_the_slide(tmp_path: Path) -> None:
    """Four slides of the same tissue, stained from faint to strong, have the same classes."""
    rng = np.random.default_rng(0)
    parts = np.repeat(np.arange(3), 240)
    stains = np.zeros((480, 720, 3))
    stains[..., 0] = np.array([0.02, 0.06, 0.14])[parts] * rng.uniform(0.5, 1.5, (480, 720))
    stains[..., 1] = np.array([0.09, 0.05, 0.03])[parts] * rng.uniform(0.5, 1.5, (480, 720))
    slides, samples = [], []
    for number, strength in enumerate((0.7, 0.85, 1.0, 1.4)):
        picture = (hed2rgb(stains * strength) * 255).astype(np.uint8)
        slides.append(open_slide(str(save_image(tmp_path / f"{number}.png", picture)), 0.5)[0])
        samples.append(sampled(slides[-1]))
    model = stain.fit(np.concatenate([one.pixels for one in samples]))
    assert model is not None
    for slide, one in zip(slides, samples, strict=True):
        label_map = model.label(slide, one.strength, 0, 0, 720, 480, 0.5)
        for part in range(3):
            inside = label_map[40:-40, 240 * part + 60 : 240 * part + 180]
            assert (inside == 1 + part).mean() > 0.9, (one.strength, part)
