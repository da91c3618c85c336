"""Two programs take turns: one runs, the other stands still, and rates are those of the turns alone."""

import multiprocessing
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks import turns


def tick(path: Path) -> None:
    while True:
        with path.open("a") as file:
            file.write(f"{time.time()}\n")
        time.sleep(0.01)


def tick_below(path: Path) -> None:
    """As a grandchild, as a command's workers are."""
    multiprocessing.Process(target=tick, args=(path,)).start()
    time.sleep(60)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_one_stands_still_while_the_other_runs(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "ab"]
    both = [multiprocessing.Process(target=target, args=(path,))
            for target, path in zip((tick, tick_below), paths, strict=True)]  # fmt: skip
    for process in both:
        process.start()
    pids = [[process.pid] for process in both if process.pid]
    try:
        while not all(path.exists() for path in paths):
            time.sleep(0.01)
        windows = turns.take_turns(pids, seconds=0.5, turns=2)
    finally:
        for some in pids:
            turns.tell(some, signal.SIGKILL)
    assert [len(some) for some in windows] == [3, 2]
    times = [[float(line) for line in path.read_text().split()] for path in paths]
    for own, other in ((0, 1), (1, 0)):
        for window in windows[own]:
            assert turns.rate(times[own], window) > 5
            late = [t for t in times[other] if window[0] + 0.1 < t < window[1]]
            assert not late, "one that has not its turn has ticked"
    order = sorted(windows[0] + windows[1])
    assert all(before[1] <= after[0] for before, after in pairwise(order))


def test_a_rate_is_that_of_whole_steps_in_the_window() -> None:
    times = [0.5, 9.9, 10.5, 11.0, 11.5, 12.0, 30.0]  # the step that ended at 10.5 began before the window
    assert turns.rate(times, (10.0, 12.0)) == pytest.approx(2.0)
    assert turns.rate(times, (10.0, 12.0), steps=4) == pytest.approx(8.0), "an entry for each four"


def test_too_short_a_turn_is_said() -> None:
    with pytest.raises(SystemExit, match="2 entries in 3 s: too few"):
        turns.rate([1.0, 2.0, 9.0], (0.0, 3.0))


def test_a_turn_is_held_against_those_around_it() -> None:
    found = turns.ratios([10.0, 20.0, 20.0], [15.0, 10.0])
    assert found["ratios"] == [1.0, 0.5]
    assert found["ratio"] == 0.75
