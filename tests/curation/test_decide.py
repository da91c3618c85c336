"""Decisions: reasons in words, nothing later changes anything earlier, harder maps get more images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgen.curation import decide
from diffgen.curation.decide import Decision, Figures
from diffgen.curation.duplicates import earlier_likes, first_alike
from diffgen.evaluation.patterns import patterns

GOOD = Figures("000000000", disagreement=0.1, density=1.0, copy_ncc=0.3, copy_of="a.png")


def test_a_good_image_is_kept_without_a_reason() -> None:
    found = decide.decide(GOOD, 0.5, 0.2)
    assert found.keep
    assert found.words is None


@pytest.mark.parametrize(
    ("changed", "kind", "words"),
    [
        ({"copied": True}, "copies", "the same as training image a.png"),
        ({"duplicate_of": "000000007"}, "duplicates", "the same as 000000007, an earlier one"),
        ({"disagreement": 0.62}, "agreement", "62% of its known pixels contradict its label map"),
        ({"density": 0.0}, "density", "a feature density of 0.00, held-out ones 0.20"),
        ({"failed": "not finite"}, "failed", "could not be made: not finite"),
    ],
)
def test_each_reason_is_told(changed: dict[str, object], kind: str, words: str) -> None:
    found = decide.decide(Figures(**{**vars(GOOD), **changed}), 0.5, 0.2)
    assert not found.keep
    assert [kind] == [one for one, _ in found.reasons]
    assert words in str(found.words)


def test_what_was_not_asked_is_no_reason() -> None:
    assert decide.decide(Figures("000000000"), 0.0, 9.0).keep


@given(st.lists(st.booleans(), max_size=30), st.integers(0, 10))
def test_the_first_that_are_kept_are_enough(kept: list[bool], wanted: int) -> None:
    given_ = [Decision() if keep else Decision((("copies", "copy"),)) for keep in kept]
    found = decide.only_first(given_, wanted)
    assert sum(one.keep for one in found) == min(wanted, sum(kept))
    places = [k for k, one in enumerate(found) if one.keep]
    assert places == [k for k, keep in enumerate(kept) if keep][:wanted]
    assert all(a == b for a, b in zip(found, given_, strict=True) if not b.keep)
    assert decide.only_first(given_, None) == given_
    assert decide.counts(found).get("surplus", 0) == max(0, sum(kept) - wanted)


def test_weights_are_those_of_freemask_over_different_maps() -> None:
    hard = np.linspace(0, 1, 40)
    found = decide.weights(hard, [f"map {k:02d}" for k in range(40)])
    assert found.tolist() == [min(1 + round(k / 40 * 20), 20) for k in range(40)]
    twice = decide.weights(np.array([0.5, 0.5, 0.1]), ["a", "a", "b"])
    assert twice.tolist() == [11, 11, 1]


def test_a_map_of_hard_classes_is_hard() -> None:
    shares = np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0], [0, 0, 0, 1], [1, 0, 0, 0]], float)
    found = decide.hardness(shares, np.array([np.nan, 0.1, 0.3, np.nan]))
    assert found.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.0])


@given(st.integers(0, 2**31))
def test_later_pictures_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    likes = [np.flatnonzero(rng.random(k) < 0.3) for k in range(12)]
    kept = rng.random(12) < 0.7
    whole = first_alike(likes, kept)
    for upto in range(12):
        assert np.array_equal(first_alike(likes[:upto], kept[:upto]), whole[:upto])
    for number, of in enumerate(whole):
        if of >= 0:
            assert kept[of]
            assert whole[of] < 0
            assert of in likes[number]


def test_repeats_are_found_in_any_turn(rng: np.random.Generator) -> None:
    pictures = list(rng.integers(0, 256, (5, 40, 40, 3), np.uint8))
    pictures += [np.rot90(pictures[1]), pictures[3][:, ::-1], np.full((40, 40, 3), 240, np.uint8)]
    pictures += [pictures[-1].copy()]  # glass: of that nothing is said
    likes = earlier_likes(patterns(pictures), 0.95)
    assert [one.tolist() for one in likes] == [[]] * 5 + [[1], [3], [], []]
