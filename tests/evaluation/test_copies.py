"""Copies are found however they are hidden, and held-out tissue is not taken for one."""

import numpy as np
import pytest

from diffgen.errors import UserError
from diffgen.evaluation.copies import evaluate_copies, largest_ncc, matches
from diffgen.evaluation.patterns import SIDE, fingerprints, patterns, turned
from tests.evaluation.crimes import CRIMES, copied, textures

TRAINING, HELD_OUT, FRESH = (textures(60, seed) for seed in range(3))


@pytest.mark.parametrize("crime", sorted(CRIMES))
def test_a_copy_is_found(crime: str) -> None:
    found = evaluate_copies(
        fingerprints(copied(TRAINING[:30], crime)),
        fingerprints(TRAINING),
        fingerprints(HELD_OUT),
        np.arange(30),
    )
    assert found.same.value > 0.95
    assert found.above.value > 0.95
    assert (found.synthetic.indices == np.arange(30)).mean() > 0.95
    assert found.same_held_out == 0
    assert not found.of_held_out.tissue.any()


def test_fresh_tissue_is_no_copy() -> None:
    found = evaluate_copies(
        fingerprints(FRESH), fingerprints(TRAINING), fingerprints(HELD_OUT), np.arange(60)
    )
    assert found.same.value == 0
    assert found.same.high == pytest.approx(0.0596, abs=1e-4), "exact: none of 60"
    assert found.above.value < 0.15


def test_inverted_grey_and_a_turn_are_named() -> None:
    ncc, nearest, _ = largest_ncc(patterns(255 - copied(TRAINING[:8], "turned")), patterns(TRAINING))
    assert ncc == pytest.approx(1, abs=1e-3)
    assert nearest.tolist() == list(range(8))
    own = patterns(copied(TRAINING[:8], "turned"))
    _, nearest, turns = largest_ncc(own, patterns(TRAINING))
    for row, (index, turn) in enumerate(zip(nearest, turns, strict=True)):
        assert own[row] @ turned(patterns(TRAINING[index][None]), int(turn))[0] == pytest.approx(1, abs=1e-3)


def test_ncc_is_numpy_s_correlation() -> None:
    small = TRAINING[:5, :SIDE, :SIDE]
    grey = (small @ np.array([0.299, 0.587, 0.114])).reshape(5, -1)
    ((found,), _, _) = largest_ncc(patterns(small[:1]), patterns(small[1:2]))
    other = grey[1].reshape(SIDE, SIDE)
    turns = [np.rot90(one, k).reshape(-1) for one in (other, other[::-1]) for k in range(4)]
    assert found == pytest.approx(max(abs(np.corrcoef(grey[0], turn)[0, 1]) for turn in turns), abs=1e-5)


def test_glass_has_no_pattern_and_small_pictures_are_refused() -> None:
    glass = np.full((2, 64, 64, 3), 240, np.uint8)
    found = matches(fingerprints(glass), fingerprints(TRAINING))
    assert not found.ncc.any()
    assert not found.same.any()
    with pytest.raises(UserError, match="too small"):
        patterns(glass[:, :16])
    with pytest.raises(UserError, match="no training pictures"):
        matches(fingerprints(glass), fingerprints([]))
