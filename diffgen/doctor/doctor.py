"""`diffgen doctor`: collects facts of this machine, the cluster, store and bundle, and has them judged."""

import os
import tempfile
import time
import uuid
from typing import Any

from rich.console import Console
from rich.table import Table

from diffgen import cache, cluster
from diffgen.defaults import bundle_folder
from diffgen.doctor import facts, judge
from diffgen.doctor.judge import Row
from diffgen.errors import UserError, counted, one_line
from diffgen.storage import Folder

COLOURS = {"ok": "green", "warn": "yellow", "wrong": "red"}


def examine(out: str, bundle: str | None, inline: bool, console: Console) -> list[Row]:
    """All rows; `inline`: without Ray. Starts no cluster, and leaves nothing behind."""
    here = facts.collect()
    by_host, nodes = {str(here["host"]): judge.machine(here)}, [here]
    skews, rows = dict[str, tuple[float, float]](), list[Row]()
    if not inline:
        row, found = _cluster(console)
        rows.append(row)
        for node in found:
            name = f"{node.get('host', '?')} ({node['node']})"
            if name in by_host:  # several nodes on one machine
                name = f"{name} {len(by_host)}"
            if "fault" in node:
                remedy = "look at its raylet's log; ray status"
                rows.append(Row("node", f"does not answer: {node['fault']}", "wrong", remedy, name))
                continue
            nodes.append(node | {"host": name})
            by_host[name] = judge.machine(node)
            skews[name] = node["ahead"], node["doubt"]
        if skews:  # this machine is one of them
            del by_host[str(here["host"])]
            nodes = nodes[1:]
    with console.status("store and bundle"):
        rows += [*judge.versions(nodes, here), *judge.clocks(skews, out.startswith("s3://"))]
        rows += [probed(out), _cache(), _bundle(bundle)]
    machines = judge.merged(by_host) if len(by_host) > 1 else next(iter(by_host.values()))
    return [*machines, *rows]


def wrong_here() -> list[Row]:
    """Only what is wrong with this machine, in a moment: without Ray, store or bundle."""
    return [row for row in judge.machine(facts.collect()) if row.verdict == "wrong"]


def probed(out: str) -> Row:
    """Of the output folder, by a file that is written and removed; a local one need not be there yet.

    On S3 the mark of an empty folder may stay, which pyarrow puts where it removes a folder's last file.
    """
    name, data = f".diffgen-probe-{uuid.uuid4().hex}", b"diffgen doctor"
    try:
        folder = Folder(out)
        if local := folder.local:
            while not local.exists():
                local = local.parent
            if not local.is_dir():
                raise NotADirectoryError(f"{local} is a file")
            began = time.monotonic()
            with tempfile.NamedTemporaryFile(dir=local, prefix=name) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            disk = facts.usage(str(local))
            return judge.store(folder.url, time.monotonic() - began, disk and disk[1], None)
        began = time.monotonic()
        try:
            folder.write(name, data)
            whole = folder.read(name) == data
        finally:
            folder.delete(name)
        seconds = time.monotonic() - began
        return judge.store(
            folder.url, seconds, None, None if whole else "reads something else than was written"
        )
    except (OSError, UserError) as error:
        return judge.store(out, None, None, getattr(error, "strerror", None) or one_line(error))


def _cache() -> Row:
    """Of this machine."""
    sizes = cache.copies()
    held = f"{counted(len(sizes), 'data set')}, {sum(sizes.values()) / 2**30:.1f} GiB"
    return Row("cache", f"{cache.root()}: {held}")


def _bundle(named: str | None) -> Row:
    """Loads it whole: weights, labels and schedule."""
    remedy = "diffgen train, or --bundle FOLDER, URL or default (which ships with diffgen)"
    try:
        from diffgen.models import bundle as bundles  # late: it imports torch

        folder = bundle_folder(named, Console(quiet=True))
        packed = bundles.pack(folder)
        loaded = bundles.load(folder)
    except (UserError, OSError, ImportError) as error:
        return Row("bundle", one_line(error), "wrong", remedy)
    parts = {"image": loaded.image_unet, "label map": loaded.mask_unet}
    absent = [name for name, part in parts.items() if part is None]
    size = sum(map(len, packed.values())) / 1e6
    found = f"{named or folder.name}: {bundles.digest(packed)[:12]}, {size:.0f} MB"
    if "image" in absent:
        return Row("bundle", f"{found}, without an image model", "wrong", "diffgen train image")
    if absent:
        return Row("bundle", f"{found}, without a mask model", "warn", "give label maps with --masks")
    return Row("bundle", found)


def _cluster(console: Console) -> tuple[Row, list[dict[str, Any]]]:
    """The row of Ray, and what its nodes say."""
    remedy = "is it up, and RAY_ADDRESS right? ray status; without a cluster: unset RAY_ADDRESS, or --inline"
    try:
        import ray  # noqa: F401
    except ImportError as error:
        return Row("Ray", one_line(error), "wrong", "pip install 'ray[data,train]', or --inline"), []
    if (address := cluster.running()) is None:
        return Row("Ray", "no cluster runs here: commands start one on this machine"), []
    try:
        if not cluster.answers(address):  # Ray itself tries for minutes
            raise UserError(f"{address}: nothing answers there")
        with console.status(f"asking the nodes of {address}"):
            cluster.connect(address)
            nodes = cluster.on_each_node(facts.collect, facts.clock)
    except (UserError, OSError, RuntimeError, ValueError) as error:
        if not os.environ.get("RAY_ADDRESS"):
            said = f"no cluster runs here (that at {address} is over): commands start one on this machine"
            return Row("Ray", said), []
        return Row("Ray", one_line(error), "wrong", remedy), []
    has = (counted(len(nodes), "node"), *(counted(cluster.available(kind), kind) for kind in ("CPU", "GPU")))
    found = f"{address}: {', '.join(has)}"
    if not os.environ.get("RAY_ADDRESS"):
        said = f"commands do not join it by themselves: export RAY_ADDRESS={address}"
        return Row("Ray", found, "warn", said), nodes
    return Row("Ray", found), nodes


def table(rows: list[Row]) -> Table:
    drawn = Table(box=None, padding=(0, 1))
    many = any(row.where for row in rows)
    for name in ("what", *["where"] * many, "found", "", "remedy"):
        drawn.add_column(name, overflow="fold", no_wrap=name in {"what", ""})
    for row in rows:
        verdict = f"[{COLOURS[row.verdict]}]{row.verdict}[/]"
        drawn.add_row(row.what, *[row.where] * many, row.found, verdict, row.remedy)
    return drawn
