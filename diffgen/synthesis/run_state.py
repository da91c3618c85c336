"""How far a run of `diffgen synthesize` is, by its output folder alone, from any machine: nothing is written.

Shards and their times are the store's, so a rate and an end are of the shards that stand: what is in the
works counts when its shard is written. Only whether a driver is at work is asked of its lock.
"""

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pyarrow.compute as pc
import yaml
from rich.filesize import decimal
from rich.table import Table

from diffgen.errors import UserError, one_line
from diffgen.lock import Holder, holder
from diffgen.storage import Folder
from diffgen.synthesis import manifest
from diffgen.synthesis.run_record import RUN, SETTINGS, SNAPSHOT, SNAPSHOTS

RECENT = 16
"""Shards that a rate is taken of."""
QUIET_S = 900.0
QUIET = 10
"""A run that writes nothing for so long, and for so many times what a shard takes, counts as quiet."""
READERS = 16

State = Literal["finished", "running", "quiet", "stopped"]
COLOURS = {"finished": "green", "running": "green", "quiet": "yellow", "stopped": "yellow"}


@dataclass(frozen=True)
class Filtered:
    """What `diffgen filter` said of the images that were there then."""

    kept: int
    images: int
    left_out: dict[str, int]
    """By kind of reason, of which an image may have several."""


@dataclass(frozen=True)
class RunState:
    """A run as its folder shows it; counts are of samples: images, or tiles of them."""

    out: str
    state: State
    unit: Literal["images", "tiles"]
    total: int | None
    """None where the folder does not say: a run of an earlier diffgen, or tiles of given label maps."""
    made: int
    failed: int
    share: float | None
    per_minute: float | None
    seconds_left: float | None
    shards: int
    shards_total: int | None
    num_bytes: int
    """Of tars and snapshots."""
    in_the_works: int
    """Large images of which there is a snapshot."""
    last_written: float | None
    """s since 1970, by the store's clock."""
    driver: str | None
    driver_at_work: bool | None
    filter: Filtered | None

    def to_json(self) -> dict[str, Any]:
        """One object, with times as text."""
        last = self.last_written
        written = None if last is None else datetime.fromtimestamp(last, UTC).isoformat(timespec="seconds")
        return {**asdict(self), "last_written": written}


def look(where: str) -> RunState:
    """Of a folder or URL; `UserError` where there is no run, or it cannot be read."""
    folder = Folder(where)
    try:
        return _look(where, folder)
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({one_line(error)})") from error


def _look(where: str, folder: Folder) -> RunState:
    run = _run(where, folder)
    each, total = run["images_per_shard"], samples(_wanted(folder), run)
    tars = folder.files("", ".tar")
    parts = folder.times("manifest", ".parquet") or dict.fromkeys(folder.files("manifest", ".parquet"), 0.0)
    saved = folder.files(SNAPSHOTS, SNAPSHOT)
    written = list[tuple[float, int]]()
    made = failed = shards = 0
    for (_, when), table in zip(parts.items(), _tables(folder, list(parts)), strict=True):
        if table is None:  # rewritten just now, or damaged: the next start makes it anew
            continue
        shards += 1
        mine = table if total is None else table.filter(pc.less(table["index"], total))
        holes = len(mine) - mine["failed"].null_count
        made, failed = made + len(mine) - holes, failed + holes
        if when:
            written.append((when, len(mine)))
    written.sort()
    other = [*folder.times(SNAPSHOTS, SNAPSHOT).values()]
    last = max([when for when, _ in written] + other, default=None)
    driver = holder(folder)
    speed = rate(written, folder.times("", SETTINGS).get(SETTINGS))
    left = None if total is None else total - made - failed
    whole = left == 0 if left is not None else folder.exists("manifest.parquet")
    now = state_of(whole, driver, last, time.time(), each / speed if speed else 0.0)
    return RunState(
        folder.url, now, "tiles" if run.get("tile") else "images", total, made, failed,
        None if not total else (made + failed) / total,
        60 * speed if speed else None,
        left / speed if left and speed and now == "running" else None,
        shards, None if total is None else -(-total // each),
        sum(tars.values()) + sum(saved.values()), len(saved), last,
        driver.named if driver else None, driver.at_work if driver else False,
        _filtered(folder),
    )  # fmt: skip


def rate(written: Sequence[tuple[float, int]], began: float | None = None) -> float | None:
    """Samples a second, of shards (time written in s, samples) in the order of their times.

    Of the last `RECENT` ones since the run began (was started last); of fewer from its beginning on, as
    images that are painted together are finished together. None where nothing was written since.
    """
    mine = [one for one in written if began is None or one[0] > began]
    if began is not None and len(mine) <= RECENT:
        mine = [(began, 0), *mine]
    mine = mine[-RECENT - 1 :]
    if len(mine) < 2 or (seconds := mine[-1][0] - mine[0][0]) <= 0:
        return None
    return sum(samples for _, samples in mine[1:]) / seconds


def state_of(whole: bool, driver: Holder | None, last: float | None, now: float, usual_s: float) -> State:
    """Whether a run goes on: `last` is when something was written, `usual_s` the time that a shard takes."""
    at_work = driver.at_work if driver else False
    if whole and not at_work:
        return "finished"
    if at_work is False:
        return "stopped"
    begun = max(last or 0.0, (driver and driver.since) or 0.0)
    silent = now - begun > max(QUIET_S, QUIET * usual_s)
    return "running" if not silent else "quiet" if at_work else "stopped"


def samples(n: int | None, run: dict[str, Any]) -> int | None:
    """Samples that n images of a run are; None where that depends on what is not in the folder."""
    if n is None or not (tile := run.get("tile")):
        return n
    size = run.get("size")
    return n * (size["height"] // tile) * (size["width"] // tile) if size else None


def _run(where: str, folder: Folder) -> dict[str, Any]:
    try:
        run = json.loads(folder.read_text(RUN) or "{}")
        if isinstance(run, dict) and int(run["images_per_shard"]) > 0:
            return run
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{where} is no run of diffgen synthesize: no readable {RUN} there")


def _wanted(folder: Folder) -> int | None:
    """n of the run that was started last."""
    try:
        return int(yaml.safe_load(folder.read_text(SETTINGS) or "")["synthesis"]["n"])
    except (yaml.YAMLError, ValueError, KeyError, TypeError):
        return None


def _tables(folder: Folder, names: Sequence[str]) -> Iterator[Any]:
    def read(name: str) -> Any:
        try:
            return manifest.read(folder, f"manifest/{name}")
        except FileNotFoundError:
            return None

    with ThreadPoolExecutor(READERS) as readers:
        yield from readers.map(read, names)


def _filtered(folder: Folder) -> Filtered | None:
    """By the record beside `filter.parquet`."""
    try:
        record = json.loads(folder.read("filter.json"))
        return Filtered(int(record["kept"]), int(record["images"]), dict(record["left_out"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def rows(run: RunState, now: float | None = None) -> list[tuple[str, str]]:
    """For people: what, and what of it; `now` in s since 1970."""
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
