"""A run's state as a table for people."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.filesize import decimal
from rich.table import Table

from diffgen.synthesis.run_state import RunState

COLOURS = {"finished": "green", "running": "green", "quiet": "yellow", "stopped": "yellow"}


def rows(run: RunState, now: float | None = None) -> list[tuple[str, str]]:
    """What, and what of it; `now` in s since 1970."""
    now = time.time() if now is None else now
    of = "" if run.total is None else f" of {run.total:,}"
    found = [("state", f"[{COLOURS[run.state]}]{run.state}[/]{_why(run, now)}")]
    share = "" if run.share is None else f" ({run.share:.1%})"
    found.append(
        (run.unit, f"{run.made:,}{of}{share}" + ("" if of else "; how many are wanted is not known"))
    )
    if run.failed:
        found.append(("failed", f"{run.failed:,}, as the manifest says why"))
    if run.in_the_works:
        found.append(("in the works", f"{run.in_the_works} with a snapshot"))
    if run.per_minute:
        found.append(("rate", f"{run.per_minute:.3g} {run.unit} a minute, by the last shards"))
    if run.seconds_left is not None:
        end = datetime.fromtimestamp(now + run.seconds_left, UTC)
        found.append(("left", f"{_span(run.seconds_left)}: {end:%Y-%m-%d %H:%M} UTC"))
    found.append(("shards", f"{run.shards:,}" + (f" of {run.shards_total:,}" if run.shards_total else "")))
    found.append(("size", decimal(run.num_bytes)))
    if run.last_written is not None:
        found.append(("last written", f"{_span(now - run.last_written)} ago"))
    if run.driver:
        found.append(("driver" if run.driver_at_work else "last driver", run.driver))
    if run.filter:
        why = "".join(f"; {count:,} {kind}" for kind, count in run.filter.left_out.items())
        found.append(("filter", f"{run.filter.kept:,} of {run.filter.images:,} kept{why}"))
    return found


def table(run: RunState) -> Table:
    drawn = Table(box=None, show_header=False, padding=(0, 2))
    for row in rows(run):
        drawn.add_row(*row)
    return drawn


def as_json(run: RunState) -> dict[str, Any]:
    """The same as one object, with times as text."""
    last = run.last_written
    written = None if last is None else datetime.fromtimestamp(last, UTC).isoformat(timespec="seconds")
    return {**run.to_json(), "last_written": written}


def _why(run: RunState, now: float) -> str:
    if run.state == "stopped":
        gone = "its driver is gone" if run.driver_at_work is False and run.driver else "no driver is at work"
        return f": {gone}; the same diffgen synthesize resumes it"
    if run.state == "quiet":
        silent = "" if run.last_written is None else f" for {_span(now - run.last_written)}"
        return f": a driver holds the folder, and nothing is written{silent}"
    return ""


def _span(seconds: float) -> str:
    return str(timedelta(seconds=round(max(0.0, seconds))))
