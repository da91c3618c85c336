"""What was made last in this folder, so that the next command finds it: `.diffgen.json`."""

import json
from pathlib import Path
from typing import Literal

MEMORY = Path(".diffgen.json")
Thing = Literal["data", "bundle"]


def remember(thing: Thing, path: Path) -> None:
    """Note where the last prepared data or the last trained bundle is."""
    known = _known() | {thing: str(path.absolute())}
    MEMORY.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")


def recall(thing: Thing) -> Path | None:
    """Where the last one is, if it is still there."""
    path = Path(_known().get(thing, ""))
    return path if str(path) != "." and path.exists() else None


def _known() -> dict[str, str]:
    try:
        return dict(json.loads(MEMORY.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
