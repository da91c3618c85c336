from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffgen.errors import UserError
from diffgen.labels import Labels, default_colours, majority


def test_round_trip(labels: Labels, tmp_path: Path) -> None:
    labels.save(tmp_path / "labels.json")
    assert Labels.load(tmp_path / "labels.json") == labels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("tumour",)}, "class 0 must be 'unknown'"),
        ({"classes": ("unknown", "a", "a")}, "'a' is given twice"),
        ({"contexts": ("x", "y")}, "every context needs a share"),
    ],
)
def test_impossible_labels(change: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Labels(**({"classes": ("unknown", "a")} | change))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"classes": [{"id": 1}], "contexts": []}'])
def test_malformed_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(UserError, match=r"labels\.json"):
        Labels.load(tmp_path / "labels.json")


@given(hnp.arrays(np.uint8, (6, 9), elements=st.integers(0, 4)))
def test_shares_sum_to_one(label_map: np.ndarray) -> None:
    labels = Labels(("unknown", "a", "b", "c", "d"))
    assert sum(labels.shares(label_map)) == pytest.approx(1)
    assert labels.shares(label_map)[2] == pytest.approx((label_map == 2).mean())


def test_overlay_leaves_unknown_alone(labels: Labels) -> None:
    image = np.full((2, 2, 3), 200, np.uint8)
    label_map = np.array([[0, 1], [2, 0]], np.uint8)
    over = labels.overlay(image, label_map)
    assert (over[label_map == 0] == 200).all()
    assert (over[label_map != 0] != 200).any()


def test_colours_differ() -> None:
    assert len(set(default_colours(30))) == 30


def test_majority_of_blocks() -> None:
    label_map = np.array([[1, 1, 2, 2, 9], [1, 3, 2, 3, 9]], np.uint8)
    assert majority(label_map, 2, 10).tolist() == [[1, 2]]
