"""Commands that look and change nothing: at a run, at a machine. Heavy imports are late, so that help is quick."""

import json
from typing import Annotated

from diffgen.cli_options import argument, new_console, option

Json = Annotated[bool, option("Print one JSON object.", "--json")]


def status(
    out: Annotated[str, argument("Folder or URL that `diffgen synthesize` writes to.")],
    as_json: Json = False,
) -> None:
    """Say how far a run is, from its output folder alone, on any machine that sees it.

    Images done and failed, rate and end by the last shards, who is at work, what a filter kept.

    Example: `diffgen status s3://bucket/tissue`
    """
    from diffgen.synthesis import run_state, run_table

    run = run_state.look(out)
    if as_json:
        print(json.dumps(run_table.as_json(run)))
    else:
        new_console().print(run_table.table(run))
