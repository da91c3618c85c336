"""The copy search: what a copy keeps is found wherever it lies, and named as it lies."""

import numpy as np
import pytest

from benchmarks.crimes import CRIMES as HIDDEN
from benchmarks.crimes import cut, jpeg
from diffgen.evaluation.candidates import InvertedFile
from diffgen.evaluation.copy_search import SearchedIn, TissueMatches, search
from diffgen.evaluation.local_features import MIRROR, grey, local_features
from diffgen.evaluation.sections.privacy_pairs import how
from tests.evaluation.crimes import textures

SIDE = 128
WIDE = textures(30, 0, 2 * SIDE)
PLACE = (40, 40, SIDE)


def points(pictures):
    return local_features(np.stack([grey(picture) for picture in pictures]))


TRAINING = points([cut(picture, PLACE) for picture in WIDE])
WITHIN = SearchedIn(TRAINING, InvertedFile(TRAINING))
MODERATE = {
    "JPEG, quality": 50,
    "shift both ways, % of the side": 9,
    "part enlarged to full size, % of the area": 44,
    "scale": 1.25,
    "turn, °": 30,
    "stain, times": 1.4,
    "mirrored and shifted, % of the side": 9,
    "shifted, enlarged 1.25, JPEG of quality": 70,
}


def found_of(pictures) -> TissueMatches:
    return search(points(pictures), WITHIN)


@pytest.mark.parametrize("crime", sorted(MODERATE))
def test_hidden_copies_are_found_with_their_training_picture(crime: str) -> None:
    found = found_of([HIDDEN[crime][0](picture, PLACE, MODERATE[crime]) for picture in WIDE])
    assert (found.same & (found.rows == np.arange(30))).mean() >= 0.8


def test_other_pictures_are_not_taken_for_copies() -> None:
    assert not found_of(textures(60, 7, SIDE)).same.any()


def test_a_copy_pasted_into_another_picture_is_found() -> None:
    pasted = textures(30, 8, SIDE)
    for one, picture in zip(pasted, WIDE, strict=True):
        one[:, :90] = cut(picture, PLACE)[:, 10:100]
    found = found_of(pasted)
    assert found.same.mean() >= 0.8


def test_a_pasted_quarter_is_found() -> None:
    pasted = textures(30, 8, SIDE)
    for one, picture in zip(pasted, WIDE, strict=True):
        one[30:94, 34:98] = cut(picture, PLACE)[30:94, 34:98]
    found = found_of(pasted)
    right = found.same & (found.rows == np.arange(30))
    assert right.mean() >= 0.5
    assert (right & ~(found.peaks >= 7)).any(), "which the whole picture's agreement would not have told"


def test_how_a_copy_lies_is_said_in_words() -> None:
    pictures = [cut(WIDE[k], PLACE, **way) for k, way in enumerate((
        {}, {"shift": (12, -8)}, {"turn": 90}, {"scale": 1.25}, {"mirror": True},
    ))]  # fmt: skip
    found = found_of(pictures)
    assert found.same.all()
    said = [how(found, row, SIDE) for row in range(5)]
    assert said[0] == "in place"
    assert said[1] == "shifted by −12, 8 px"
    assert said[2] in {"turned by 90°", "turned by 270°"}
    assert said[3] == "1.25 times as large"
    assert said[4] == "mirrored"


def test_a_mirrored_descriptor_is_that_of_the_mirrored_picture() -> None:
    one, other = TRAINING.mirrored(), points([cut(picture, PLACE)[:, ::-1] for picture in WIDE])
    assert (np.sort(MIRROR) == np.arange(128)).all()
    best = [(one.descriptors[one.of(k)] @ other.descriptors[other.of(k)].T).max(axis=1) for k in range(30)]
    assert np.median(np.concatenate(best)) > 0.98


def test_what_is_found_of_a_picture_does_not_depend_on_the_others() -> None:
    pictures = [jpeg(cut(picture, PLACE, shift=(9, 9)), 70) for picture in WIDE]
    every, few = found_of(pictures), found_of(pictures[5:8])
    assert (every.agreeing[5:8] == few.agreeing).all()
    assert (every.maps[5:8] == few.maps).all()
