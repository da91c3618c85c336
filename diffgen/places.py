"""Where things are: the presets, and what was made last in this folder (`.diffgen.json`)."""

import json
from pathlib import Path
from typing import Literal

MEMORY = Path(".diffgen.json")
Thing = Literal["data", "bundle"]


def presets() -> dict[str, Path]:
    """Presets by name: YAML files in `conf/` of the package or, in a checkout, beside it."""
    here = Path(__file__).parent
    folder = next((f for f in (here / "conf", here.parent / "conf") if f.is_dir()), here / "conf")
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


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
