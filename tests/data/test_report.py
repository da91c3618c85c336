"""What was left out, by reason."""

import time

from diffgen.data.report import LeftOuts


def test_a_name_is_listed_once_for_each_reason() -> None:
    left = LeftOuts()
    for reason, name in (("small", "a"), ("small", "b"), ("white", "a"), ("small", "a")):
        left.add(reason, name)
    assert left.by_reason == {"small": ["a", "b"], "white": ["a"]}
    assert left.first() == "small: a, b; white: a"


def test_many_are_no_work() -> None:
    left = LeftOuts()
    began = time.process_time()
    for k in range(20_000):
        left.add("no tissue", f"{k}.png")
    assert time.process_time() - began < 1
