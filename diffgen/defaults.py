"""What a command works with where it is not told: what was made last in this folder, else a default."""

import atexit
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from diffgen import config, places
from diffgen.errors import UserError


def training_settings(
    data: str | None,
    run: str | None,
    preset: str | None,
    overrides: Sequence[str],
    gpu: bool | None,
    console: Console,
) -> tuple[str, config.Settings]:
    """Prepared data (folder or URL), and the settings of a training on it, begun with those of the data.

    The data is what the command or its settings name, else the last prepared.
    """
    named = config.given(preset, overrides).get("places")
    named = named.get("data") if isinstance(named, dict) else None  # of any other type: refused later
    data = data or (named if isinstance(named, str) else None)
    if data is None and (last := _last("data", console)):
        data = str(last)
    if data is None:
        data = config.Places().data
        console.print(f"data: {data} (the default)")
    otherwise = f"{data} holds no prepared data: diffgen prepare SOURCE… --out {data}"
    if "://" in data:
        from diffgen.storage import Folder  # late: help is quick

        if (text := Folder(data).read_text("settings.yaml")) is None:
            raise UserError(otherwise)
        under = config.parse_yaml(text, f"{data}/settings.yaml")
    else:
        under = saved(Path(data), otherwise)
    options = {"gpu": gpu, "places.run": run, "places.data": data}
    return data, config.load(preset, overrides, under, options)


def run_folder(settings: config.Settings) -> str:
    """Folder or URL of a run."""
    return f"{settings.places.runs.rstrip('/')}/{settings.places.run}"


def bundle_folder(bundle: str | None, console: Console) -> Path:
    """Folder of the named bundle (from behind a URL: of a copy that is gone when we are).

    Without a name: of the last trained, of the default run or, where nothing was trained, of the bundle that
    ships with diffgen. Raises `UserError` where there is none.
    """
    from diffgen.models import shipped  # late: it imports torch
    from diffgen.storage import fetched

    if bundle:
        copy = tempfile.TemporaryDirectory()
        atexit.register(copy.cleanup)
        return fetched(shipped.resolve(bundle), Path(copy.name))
    if last := _last("bundle", console):
        return last
    trained = Path(run_folder(config.Settings())) / "bundle"
    if trained.exists():
        console.print(f"bundle: {trained} (the default)")
        return trained
    console.print(f"bundle: {shipped.DEFAULT}, which comes with diffgen (nothing was trained here)")
    return Path(shipped.resolve(shipped.DEFAULT))


def saved(folder: Path, otherwise: str | None = None) -> dict[str, Any]:
    """The settings saved with data or a bundle; where there are none, `UserError` with a line or nothing."""
    path = folder / "settings.yaml"
    if path.exists():
        return config.read_yaml(path)
    if otherwise:
        raise UserError(otherwise)
    return {}


def check_size(folder: Path, size: str) -> None:
    """`UserError` for a size that the bundle cannot draw, before seconds go into importing what draws."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        factor, patch = int(index["factor"]), int(index["image_patch"])
    except (OSError, ValueError, KeyError):  # what is no bundle is said where it is read
        return
    config.check_sides(config.parse_size(size), factor, patch, f"--size {size}")


def real_images(real: str | None, console: Console) -> str:
    """The real images that synthetic ones are filtered by: those named, else the data prepared last."""
    found = real or _last("data", console)
    if found is None:
        raise UserError("no real images to judge by: --real DATA, what the generator learned from")
    return str(found)


def _last(thing: places.Thing, console: Console) -> Path | None:
    path = places.recall(thing)
    if path is not None:
        path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        console.print(f"{thing}: {path} (the last one made here)")
    return path
