"""Commands that look and change nothing: at a run, at a machine. Heavy imports are late: help is quick."""

import contextlib
import json
import sys
from typing import Annotated

from diffgen.cli_options import Inline, argument, new_console, option

Json = Annotated[bool, option("Print one JSON object.", "--json")]


def status(
    out: Annotated[str, argument("Folder or URL that `diffgen synthesize` writes to.")],
    as_json: Json = False,
) -> None:
    """Say how far a run is, from its output folder alone, on any machine that sees it.

    Images done and failed, rate and end by the last shards, who is at work, what a filter kept.

    Example: `diffgen status s3://bucket/tissue`
    """
    from diffgen.synthesis import run_state

    run = run_state.look(out)
    if as_json:
        print(json.dumps(run.to_json()))
    else:
        new_console().print(run_state.table(run))


def doctor(
    out: Annotated[str | None, option("Folder or URL that a run will write to. [default: out]")] = None,
    bundle: Annotated[str | None, option("Folder, URL, name. [default: as synthesize takes it]")] = None,
    inline: Inline = False,
    as_json: Json = False,
) -> None:
    """Say what this machine and the cluster have, what is wrong, and its remedy.

    GPUs, memory, disks and versions of every node (RAY_ADDRESS, or a cluster that runs here; none is
    started), the output folder by a probe file, the bundle by loading it. Status 2 where something is wrong.

    Example: `diffgen doctor --out s3://bucket/tissue`
    """
    from diffgen.config import Places
    from diffgen.doctor import doctor, judge

    rows = doctor.examine(out or Places().out, bundle, inline, new_console())
    if as_json:
        print(json.dumps([vars(row) for row in rows]))
    else:
        new_console().print(doctor.table(rows))
    sys.exit(0 if judge.can_run(rows) else 2)


def say_what_is_wrong() -> None:
    """After the line of a run that could not start: what is wrong with this machine, on stderr."""
    with contextlib.suppress(Exception):  # nothing may stand in that line's way
        from diffgen.doctor.doctor import wrong_here

        for row in wrong_here():
            print(f"  {row.what}: {row.found}; {row.remedy}", file=sys.stderr)
        print("  diffgen doctor says more", file=sys.stderr)
