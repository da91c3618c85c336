"""The ruler of the decoding benchmark: 1 where there is no seam, much more where there is one."""

import numpy as np
import pytest

from benchmarks import decoding
from diffgen.sampling.decode import windows

FACTOR, SIDE = 8, 96


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(60, 180, (SIDE * FACTOR, SIDE * FACTOR, 3)).astype(np.uint8)


@pytest.mark.parametrize(("blending", "seen"), [("none", True), ("hann", False), ("ramp", False)])
def test_a_seam_is_seen_where_windows_differ(picture: np.ndarray, blending: str, seen: bool) -> None:
    """Windows that are each a tone of their own, laid side by side or blended."""
    spans = windows(SIDE, 40, 0.25)
    weighted = decoding.BLENDS[blending](SIDE, spans, FACTOR)
    found = []
    for y, (y0, y1) in enumerate(spans):
        for x, (x0, x1) in enumerate(spans):
            box = np.s_[y0 * FACTOR : y1 * FACTOR, x0 * FACTOR : x1 * FACTOR]
            pixels = picture[box].transpose(2, 0, 1) / 127.5 - 1 + 0.4 * ((x + y) % 2)
            found.append(decoding.Window(y, x, pixels.astype(np.float32)))
    tiled = decoding.blended(found, (spans, spans), (weighted, weighted), FACTOR)
    ratio, error = decoding.seam(tiled, picture, (spans, spans), FACTOR, 0)
    assert (ratio > 1.5) == seen
    assert (abs(ratio - 1) < 0.1) != seen
    assert error < 0.2


def test_the_same_picture_has_no_seam(picture: np.ndarray) -> None:
    spans = windows(SIDE, 40, 0.25)
    for kind in (0, 1):
        assert decoding.seam(picture, picture, (spans, spans), FACTOR, kind)[0] == 1
