"""Two programs side by side on a noisy machine: both run all the while, and take turns of seconds.

What is not at its turn is stopped (SIGSTOP), with all its descendants, so it takes nothing of the other's
cores; what the machine does to one's turns it does to the other's, which lie between them.
"""

import os
import signal
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

Window = tuple[float, float]
"""From when to when, in seconds of `time.time`."""


def descendants(pid: int) -> list[int]:
    """Pids of all processes below one, from /proc."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:  # it has ended meanwhile
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found = list(children.get(pid, []))
    for one in found:  # grows as it goes
        found += children.get(one, [])
    return found


def tell(pids: Sequence[int], number: signal.Signals) -> None:
    """A signal to these processes and all below them."""
    for pid in pids:
        for one in (pid, *descendants(pid)):
            try:
                os.kill(one, number)
            except ProcessLookupError:
                continue


@contextmanager
def paused(pids: Sequence[int]) -> Iterator[None]:
    tell(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        tell(pids, signal.SIGCONT)


def take_turns(pids: Sequence[Sequence[int]], seconds: float, turns: int) -> list[list[Window]]:
    """Windows in which each of two programs, given by its processes, ran alone: A B A B … A."""
    windows: list[list[Window]] = [[], []]
    for k in range(2 * turns + 1):
        with paused(pids[1 - k % 2]):
            began = time.time()
            time.sleep(seconds)
            windows[k % 2].append((began, time.time()))
    return windows


def rate(times: Sequence[float], window: Window, steps: int = 1) -> float:
    """Steps per second within a window, by the times at which each `steps` of them ended."""
    inside = [t for t in times if window[0] < t <= window[1]]
    if len(inside) < 3:
        raise SystemExit(
            f"{len(inside)} entries in {window[1] - window[0]:.0f} s: too few; take more --seconds"
        )
    return steps * (len(inside) - 1) / (inside[-1] - inside[0])


def ratios(bare: Sequence[float], command: Sequence[float]) -> dict[str, Any]:
    """Each rate of the command by that of the bare turns around it: median, and median of the bare ones."""
    around = [statistics.mean(two) for two in pairwise(bare)]
    found = [one / two for one, two in zip(command, around, strict=True)]
    return {"ratio": statistics.median(found), "ratios": found, "command": list(command), "bare": list(bare)}
