"""Copies are found however they are hidden, and held-out tissue is not taken for one."""

import numpy as np
import pytest

from diffgen.errors import UserError
from diffgen.evaluation.copies import evaluate_copies, matches
from diffgen.evaluation.patterns import SIDE, patterns, turned
from tests.evaluation.crimes import CRIMES, copied, textures

TRAINING, HELD_OUT, FRESH = (textures(60, seed) for seed in range(3))


@pytest.mark.parametrize("crime", sorted(CRIMES))
def test_a_copy_is_found(crime: str) -> None:
    found = evaluate_copies(
        patterns(copied(TRAINING[:30], crime)),
        patterns(TRAINING),
        patterns(HELD_OUT),
        np.arange(30),
        count=20,
    )
    assert found.same.value > 0.95
    assert found.above.value > 0.95
    assert (found.synthetic.indices == np.arange(30)).mean() > 0.95
    assert found.same_held_out == 0


def test_fresh_tissue_is_no_copy() -> None:
    found = evaluate_copies(patterns(FRESH), patterns(TRAINING), patterns(HELD_OUT), np.arange(60), count=20)
    assert found.same.value == 0
    assert found.above.value < 0.15


def test_inverted_grey_and_a_turn_are_named() -> None:
    found = matches(patterns(255 - copied(TRAINING[:8], "turned")), patterns(TRAINING))
    assert found.ncc == pytest.approx(1, abs=1e-3)
    assert found.indices.tolist() == list(range(8))
    own = patterns(copied(TRAINING[:8], "turned"))
    for row, (index, turn) in enumerate(zip(found.indices, found.turns, strict=True)):
        assert own[row] @ turned(patterns(TRAINING[index][None]), int(turn))[0] == pytest.approx(1, abs=1e-3)


def test_ncc_is_numpy_s_correlation() -> None:
    small = TRAINING[:5, :SIDE, :SIDE]
    grey = (small @ np.array([0.299, 0.587, 0.114])).reshape(5, -1)
    (found,) = matches(patterns(small[:1]), patterns(small[1:2])).ncc
    other = grey[1].reshape(SIDE, SIDE)
    turns = [np.rot90(one, k).reshape(-1) for one in (other, other[::-1]) for k in range(4)]
    assert found == pytest.approx(max(abs(np.corrcoef(grey[0], turn)[0, 1]) for turn in turns), abs=1e-5)


def test_glass_has_no_pattern_and_small_pictures_are_refused() -> None:
    glass = np.full((2, 64, 64, 3), 240, np.uint8)
    found = matches(patterns(glass), patterns(TRAINING))
    assert found.flat.all()
    assert not found.ncc.any()
    with pytest.raises(UserError, match="too small"):
        patterns(glass[:, :16])
    with pytest.raises(UserError, match="no training pictures"):
        matches(patterns(glass), patterns([]))
