"""What was left out, by reason."""

import time
from pathlib import Path

from diffgen.data.report import Report


def test_a_name_is_listed_once_for_each_reason() -> None:
    report = Report(Path("out"))
    for reason, name in (("small", "a"), ("small", "b"), ("white", "a"), ("small", "a")):
        report.leave_out(reason, name)
    assert report.left_out == {"small": ["a", "b"], "white": ["a"]}
    assert report.nothing() == "nothing could be prepared (small: a, b; white: a)"


def test_many_are_no_work() -> None:
    report = Report(Path("out"))
    began = time.process_time()
    for k in range(20_000):
        report.leave_out("no tissue", f"{k}.png")
    assert time.process_time() - began < 1
