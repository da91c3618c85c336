import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from diffgen.data.annotations import rle

MASK = np.zeros((9, 12), np.uint8)
MASK[2:7, 3:9], MASK[4, 5], MASK[0, 11], MASK[8, 0] = 1, 0, 1, 1
BY_PYCOCOTOOLS = "81d04@00MM0330000`0LD"


def pixels(code: dict[str, object], shape: tuple[int, ...]) -> np.ndarray:
    """Which pixels' centres lie in the area."""
    y, x = np.indices(shape) + 0.5
    return np.asarray(shapely.contains_xy(rle.area(code), x, y), np.uint8)


def runs(mask: np.ndarray) -> list[int]:
    """Lengths of equal pixels down the columns, of zeros first."""
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *edges, flat.size]).tolist()
    return [0, *lengths] if flat[0] else lengths


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 99), st.floats(0, 1))
def test_runs_are_the_pixels_they_were_made_of(height: int, width: int, seed: int, share: float) -> None:
    mask = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    code = {"size": [height, width], "counts": runs(mask)}
    assert np.array_equal(pixels(code, mask.shape), mask)
    assert rle.area(code).area == mask.sum()


@pytest.mark.parametrize("counts", [BY_PYCOCOTOOLS, BY_PYCOCOTOOLS.encode(), runs(MASK)])
def test_what_pycocotools_writes(counts: object) -> None:
    assert np.array_equal(pixels({"size": [9, 12], "counts": counts}, MASK.shape), MASK)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ({"size": [9, 12], "counts": [3, 4]}, "not those of 12x9"),
        ({"size": [2, 2], "counts": [5, -1]}, "not those of 2x2"),
        ({"size": [9, 12], "counts": BY_PYCOCOTOOLS[:-1] + "P"}, "end within a number"),
        ({"size": [9, 12], "counts": " " + BY_PYCOCOTOOLS}, "the letter ' '"),
    ],
)
def test_malformed_codes(code: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rle.area(code)
