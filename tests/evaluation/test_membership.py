"""Membership inference: a coin where nothing was learned by heart, certain where all was."""

import numpy as np
import pytest

from diffgen.evaluation.memorization import auc, membership

RNG = np.random.default_rng(0)
TRAINING, HELD_OUT, FRESH = (RNG.normal(size=(80, 4)) for _ in range(3))
SOURCES = np.arange(80), np.arange(80) + 80


def test_copies_tell_who_was_in_the_training_set_and_fresh_samples_do_not() -> None:
    told = membership(TRAINING, HELD_OUT, TRAINING + 1e-3, *SOURCES, count=200)
    assert told.value > 0.99
    private = membership(TRAINING, HELD_OUT, FRESH, *SOURCES, count=200)
    assert private.low < 0.5 < private.high


def test_auc_is_counted_over_pairs() -> None:
    near, far = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0])
    weights = np.array([[1.0, 1.0, 1.0], [2.0, 0.0, 1.0]]), np.array([[1.0, 1.0], [1.0, 1.0]])
    assert auc(near, far, *weights) == pytest.approx([4.5 / 6, 5 / 6])
