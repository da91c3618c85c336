import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffgen.training.meters import BANDS, BOUNDS, Meters

NAMES = ("unknown", "stroma", "tumour", "fat")


def test_bands_say_what_they_hold() -> None:
    assert BANDS == ["..-6", "-6..-3", "-3..0", "0..3", "3..6", "6.."]
    meters = Meters()
    for value in (-torch.inf, -6.1, -6.0, -0.1, 0.0, 5.9, 6.0, torch.inf):
        meters.add(torch.full((1, 2, 2), 1.0), torch.tensor([value]), torch.tensor([1]))
        (name,) = meters.figures()
        below, above = (
            float(end or sign * np.inf)
            for end, sign in zip(name.removeprefix("loss_by_log_snr/").split(".."), (-1, 1), strict=True)
        )
        assert below <= value <= above


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(0, 999)), min_size=1, max_size=4))
def test_means_are_those_of_all_that_was_added(batches: list[tuple[int, int, int]]) -> None:
    """Whatever the sizes: as from one long list of samples and one of pixels."""
    meters, samples, pixels = Meters(), [], []
    for count, side, seed in batches:
        torch.manual_seed(seed)
        loss, level = torch.rand(count, side, side), 8 * torch.randn(count)
        maps = torch.randint(0, len(NAMES), (count, side, side), dtype=torch.uint8)
        meters.add(loss, level, maps)
        samples += zip(level.tolist(), loss.mean(dim=(1, 2)).tolist(), strict=True)
        pixels += zip(maps.flatten().tolist(), loss.flatten().tolist(), strict=True)
    expected = {}
    for k, name in enumerate(BANDS):
        if of := [loss for level, loss in samples if np.digitize(level, BOUNDS) == k]:
            expected[f"loss_by_log_snr/{name}"] = np.mean(of)
    known = sum(label > 0 for label, _ in pixels)
    for label, name in enumerate(NAMES):
        if of := [loss for own, loss in pixels if own == label]:
            expected[f"loss_by_label/{name}"] = np.mean(of)
        if label and known:
            expected[f"label_share_seen/{name}"] = len(of) / known
    figures = meters.figures(NAMES)
    assert figures == pytest.approx(expected, rel=1e-4)
    assert meters.figures(NAMES) == {}


def test_contexts_have_no_figures_by_label() -> None:
    meters = Meters()
    meters.add(torch.ones(2, 4, 4), torch.zeros(2), torch.tensor([1, 2]))
    assert meters.figures() == {"loss_by_log_snr/0..3": 1.0}


def test_a_step_of_nulls_alone_says_no_shares() -> None:
    meters = Meters()
    meters.add(torch.full((2, 4, 4), 3.0), torch.zeros(2), torch.zeros(2, 4, 4, dtype=torch.long))
    assert meters.figures(NAMES) == {"loss_by_log_snr/0..3": 3.0, "loss_by_label/unknown": 3.0}


def test_adding_never_waits_for_the_device() -> None:
    """On the meta device there is nothing to read, so whoever reads fails."""
    meters = Meters()
    with torch.device("meta"):
        for side in (8, 16):
            maps = torch.zeros(2, side, side, dtype=torch.uint8)
            meters.add(torch.zeros(2, side, side), torch.zeros(2), maps)
    with pytest.raises((NotImplementedError, RuntimeError)):
        meters.figures(NAMES)
