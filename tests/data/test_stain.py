from pathlib import Path

import numpy as np
import pytest

from diffgen.data import stain
from diffgen.data.slides import Slide, open_slide
from diffgen.data.tissue import TISSUE_UM, tissue_mask
from tests.data.pictures import save_image, tissue


@pytest.fixture
def slide(tmp_path: Path) -> Slide:
    return open_slide(str(save_image(tmp_path / "a.png", tissue(900, 700))), 0.5)[0]


def fitted(slide: Slide) -> stain.StainModel:
    mask = tissue_mask(slide.read(0, 0, *slide.size(TISSUE_UM), TISSUE_UM), TISSUE_UM)
    model = stain.fit(stain.sample(slide, mask))
    assert model is not None
    return model


def test_labels_follow_the_tissue(slide: Slide) -> None:
    labels = fitted(slide).label(slide, 0, 0, 900, 700, 0.5)
    assert labels.shape == (700, 900)
    assert (labels[:, :95] == stain.STAIN_CLASSES.index("background")).all()
    assert (labels[500:, 200:] == stain.STAIN_CLASSES.index("stroma-like")).mean() > 0.95
    assert (labels[220:340, 480:600] >= stain.STAIN_CLASSES.index("epithelium-like")).all()


def test_labels_do_not_depend_on_the_patch(slide: Slide) -> None:
    model = fitted(slide)
    whole = model.label(slide, 0, 0, 900, 700, 0.5)
    for x, y, w, h in ((0, 0, 256, 256), (301, 177, 256, 200), (644, 444, 256, 256)):
        assert (model.label(slide, x, y, w, h, 0.5) == whole[y : y + h, x : x + w]).mean() > 0.999


def test_the_same_slide_gives_the_same_model_in_the_same_order(slide: Slide) -> None:
    model = fitted(slide)
    assert model == fitted(slide)
    assert [h for h, _ in model.centres] == sorted(h for h, _ in model.centres)


def test_too_few_pixels_give_no_model() -> None:
    assert stain.fit(np.ones((5, 2), np.float32)) is None
