"""`run.json`: which run, on which devices, an output folder belongs to."""

import json
from collections.abc import Mapping
from typing import Any

from diffgen.config import differences
from diffgen.errors import UserError, one_line
from diffgen.storage import Folder

RUN = "run.json"
SETTINGS = "settings.yaml"
"""Beside it: all settings of the run that was started last."""
SNAPSHOTS, SNAPSHOT = "snapshots", ".safetensors"
"""Folder of snapshots of images in the works, and the ending of their names."""
MADE_ON = "made_on"
"""In it: kinds of device, with precision and version of torch, that samples here were made on."""


def claim(
    folder: Folder, run: Mapping[str, Any], made_on: Mapping[str, str] | None = None, mix: bool = False
) -> None:
    """Make this the folder of a run, or find that it is; `mix`: on whatever device it began.

    Raises `UserError` if it holds other things, or says how another run, or its device, differs.
    """
    entries = folder.entries()
    if RUN not in entries:
        if entries:
            raise UserError(f"{folder} is not empty and was not made by diffgen synthesize")
        _write(folder, {**run, MADE_ON: [dict(made_on)]} if made_on else run)
        return
    try:
        old = json.loads(folder.read(RUN))
    except ValueError as error:
        raise UserError(f"{folder}: {RUN} is not readable ({one_line(error)})") from error
    known = old.pop(MADE_ON, [])  # none: it is from before this was written down
    _same(folder, of_any_device(old), of_any_device(run))
    if made_on and known and made_on not in known:
        if not mix:
            changed = "; ".join(differences(known[0], made_on))
            raise UserError(
                f"{folder} was made on another device: {changed}; choose another --out, or "
                "--mix-devices to go on all the same, with other rounding"
            )
        _write(folder, {**old, MADE_ON: [*known, dict(made_on)]})
    elif not mix and known[:1] in ([], [made_on]):
        _same(folder, old, run)


def per_shard(folder: Folder) -> int | None:
    """Samples a shard in a folder of a run; `None` where there is no run, or it is not readable."""
    try:
        found = json.loads(folder.read_text(RUN) or "{}").get("images_per_shard")
    except (ValueError, AttributeError):  # `claim` says what is wrong
        return None
    return found if isinstance(found, int) else None


def of_any_device(run: Any) -> Any:
    """What shapes the samples, without the settings that a device settles."""
    if not isinstance(run, dict) or not isinstance(run.get("sampling"), dict):
        return run
    settled = {"precision", "micro_batch"}
    return run | {"sampling": {key: value for key, value in run["sampling"].items() if key not in settled}}


def _write(folder: Folder, run: Mapping[str, Any]) -> None:
    folder.write(RUN, (json.dumps(run, indent=2, sort_keys=True) + "\n").encode())


def _same(folder: Folder, old: Any, run: Any) -> None:
    if old != run:
        found = differences(old, run) or ["a key without a value"]
        shown = "; ".join([*found[:3], f"… and {len(found) - 3} more"][: len(found)])
        raise UserError(f"{folder} was made with other settings: {shown}; choose another --out")
