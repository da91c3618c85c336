import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgen.sampling import covers

sides = st.integers(0, 60)


@given(sides, sides, st.integers(1, 24), st.floats(0, 0.95), st.integers(0, 2**32), st.booleans())
def test_every_pixel_has_one_owner_that_holds_it(
    dy: int, dx: int, patch: int, overlap: float, seed: int, jittered: bool
) -> None:
    """Promise 1, whatever the size, square or not, down to one patch."""
    height, width = patch + dy, patch + dx
    rule = covers.rule("jittered" if jittered else "random", overlap)
    cover = rule(height, width, patch, np.random.default_rng(seed))
    assert cover.owner.shape == (height, width)
    assert (cover.boxes[:, :2] >= 0).all()
    assert (cover.boxes[:, 2:] <= (height, width)).all()
    assert (cover.boxes[:, 2:] - cover.boxes[:, :2] == patch).all()
    written = np.zeros((height, width), int)
    for number in range(len(cover)):
        owned = cover.owned(number)
        assert owned.any(), "a patch that owns nothing is a wasted forward"
        written[cover.box(number)] += owned
    assert (written == 1).all()


@given(st.integers(16, 80), st.integers(16, 80), st.integers(0, 2**32))
def test_jittered_owner_is_the_nearest_centre(height: int, width: int, seed: int) -> None:
    cover = covers.jittered(height, width, 16, np.random.default_rng(seed), 0.25)
    centres = (cover.boxes[:, :2] + cover.boxes[:, 2:]) / 2
    y, x = np.mgrid[:height, :width] + 0.5
    distance = (y[..., None] - centres[:, 0]) ** 2 + (x[..., None] - centres[:, 1]) ** 2
    own = np.take_along_axis(distance, cover.owner[..., None].astype(int), -1)[..., 0]
    assert (own <= distance.min(-1) + 1e-9).all()


def test_random_rule_is_the_first_owner() -> None:
    """Eq. (6): a pixel belongs to the first patch that holds it."""
    cover = covers.random(40, 56, 16, np.random.default_rng(3))
    for number in range(len(cover)):
        held = cover.owner[cover.box(number)]
        assert (held <= number).all()


@pytest.mark.parametrize(("side", "mean"), [(128, 8.1), (256, 35.9)])
def test_random_rule_costs_what_the_paper_s_code_does(side: int, mean: float) -> None:
    """Mean patches a step with patches of 64, as counted in the released code."""
    counts = [len(covers.random(side, side, 64, np.random.default_rng(seed))) for seed in range(300)]
    assert np.mean(counts) == pytest.approx(mean, rel=0.03)


def test_jitter_shifts_both_directions_and_each_step() -> None:
    offsets = {tuple(covers.jittered(64, 64, 16, np.random.default_rng(k)).boxes[-1, :2]) for k in range(9)}
    assert len(offsets) == 1  # the last patch is clamped to the corner
    inner = {tuple(covers.jittered(64, 64, 16, np.random.default_rng(k)).boxes[6, :2]) for k in range(20)}
    assert len({y for y, _ in inner}) > 3
    assert len({x for _, x in inner}) > 3


def test_one_patch_canvas() -> None:
    for name in ("jittered", "random"):
        assert len(covers.rule(name, 0.1)(8, 8, 8, np.random.default_rng(0))) == 1
