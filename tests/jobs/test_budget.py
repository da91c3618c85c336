"""The budget of a recipe: what its parts are given adds up, and none is given what it cannot use."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from diffgen.errors import UserError
from jobs.budget import SHARES, seconds, shared_out

PARTS = st.lists(st.sampled_from(list(SHARES)), min_size=1, unique=True)


@pytest.mark.parametrize(("text", "wanted"), [("8m", 480), ("20h", 72000), ("1h30m", 5400), ("1.5m", 90)])
def test_reads_a_time(text: str, wanted: float) -> None:
    assert seconds(text) == wanted


@pytest.mark.parametrize("text", ["8", "m", "8 m", "-8m", "8d", ""])
def test_names_a_time_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match=f"--budget {text}: expected"):
        seconds(text)


@given(PARTS, st.floats(0, 1e6))
@example(["image"], 322638.82912825746)  # times 52, by 52, is more than it was
def test_gives_all_there_is_and_no_part_more_than_it_can_use(todo: list[str], left: float) -> None:
    given_to = shared_out(left, todo)
    assert set(given_to) == set(todo)
    assert all(0 <= given_to[part] <= (SHARES[part].most or left) for part in todo)
    if any(SHARES[part].most is None for part in todo):
        assert sum(given_to.values()) == pytest.approx(left)


def test_what_a_part_left_over_goes_to_those_after_it() -> None:
    first = shared_out(1000, SHARES)
    later = [part for part in SHARES if part not in ("pictures", "prepare")]
    # both took a second of the 80 they were given
    assert shared_out(998, later)["image"] > first["image"]
    assert shared_out(1000 - first["pictures"] - first["prepare"], later)["image"] == pytest.approx(
        first["image"]
    )


def test_a_long_budget_is_for_training() -> None:
    day = shared_out(24 * 3600, SHARES)
    assert day["evaluate"] == 3600
    assert day["autoencoder"] + day["image"] + day["mask"] > 0.9 * 24 * 3600


def test_nothing_is_left_of_a_budget_that_is_used_up() -> None:
    assert shared_out(-5, ["image", "mask"]) == {"image": 0, "mask": 0}
