"""Settings put together: one tree for all commands.

A tree is made of the defaults of `schema`, the settings saved with the data or the bundle, a preset
or a YAML file, and `--set key=value` on the command line, each over the one before. A key that does
not exist, a value of the wrong type and a combination that cannot work are one line that names key,
value and what is allowed.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from diffgen.errors import UserError, one_line
from diffgen.schema import (
    Autoencoder,
    AutoencoderTraining,
    Diffusion,
    Downstream,
    Evaluation,
    GuidanceSettings,
    ImageModel,
    MaskModel,
    ModelTraining,
    Optimization,
    Places,
    Prepare,
    Sampling,
    Settings,
    Synthesis,
    Training,
    UNet,
)

__all__ = [
    "Autoencoder",
    "AutoencoderTraining",
    "Diffusion",
    "Downstream",
    "Evaluation",
    "GuidanceSettings",
    "ImageModel",
    "MaskModel",
    "ModelTraining",
    "Optimization",
    "Places",
    "Prepare",
    "Sampling",
    "Settings",
    "Synthesis",
    "Training",
    "UNet",
    "differences",
    "given",
    "leaf",
    "load",
    "merge",
    "parse_override",
    "parse_size",
    "preset",
    "read_yaml",
    "validate",
]

RENAMED = {
    "use": "downstream",
    "methods": "baselines",
    "methods_images": "baseline_images",
    "methods_side": "baseline_side",
}
"""Keys and parts of `evaluation` under their names of release 0.1, which are understood until 0.3."""


def load(
    base: Path | str | None = None,
    overrides: Iterable[str] = (),
    under: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings from a preset's name or a YAML file, over the saved tree `under`.

    Over them go `key=value` overrides, then `options` (dotted key → value; `None` is not given).
    Raises `UserError` on an unknown key, a wrong type or an impossible combination.
    """
    tree = merge(current(under or {}), given(base, overrides))
    for key, value in (options or {}).items():
        if value is not None:
            tree = merge(tree, leaf(key, str(value) if isinstance(value, Path) else value))
    return validate(tree)


def given(base: Path | str | None, overrides: Iterable[str]) -> dict[str, Any]:
    """What a command is told: a preset or a file, and `key=value` over it. Not validated."""
    tree = {} if base is None else current(read_yaml(preset(base)), say=True)
    for override in overrides:
        tree = merge(tree, current(parse_override(override), say=True))
    return tree


def current(tree: Mapping[str, Any], say: bool = False) -> dict[str, Any]:
    """A tree whose settings have their present names; on stderr, if asked, a line for each old one."""
    evaluation = tree.get("evaluation")
    if not isinstance(evaluation, Mapping):
        return dict(tree)
    named = {RENAMED.get(key, key): value for key, value in evaluation.items()}
    if isinstance(named.get("parts"), list):
        named["parts"] = [RENAMED.get(part, part) for part in named["parts"]]
    for old in sorted(RENAMED.keys() & evaluation.keys()) if say else ():
        print(f"evaluation.{old} is now called evaluation.{RENAMED[old]}", file=sys.stderr)
    return {**tree, "evaluation": named}


def validate(tree: Mapping[str, Any]) -> Settings:
    try:
        return Settings.model_validate(current(tree))
    except ValidationError as error:
        raise UserError(explain(error)) from error


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not a readable YAML file ({one_line(error)})") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path}: settings are a mapping of keys, not {type(tree).__name__}")
    return tree


def preset(name: Path | str) -> Path:
    """Path of a preset by its name (`demo`), or of a YAML file."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        return path
    here = Path(__file__).parent
    folder = next((f for f in (here / "conf", here.parent / "conf") if f.is_dir()), here / "conf")
    known = sorted(p.stem for p in folder.glob("*.yaml"))
    if str(name) not in known:
        raise UserError(f"preset {str(name)!r} is unknown; there are: {', '.join(known)}, or any .yaml file")
    return folder / f"{name}.yaml"


def parse_override(text: str) -> dict[str, Any]:
    """`sampling.steps=50` → `{"sampling": {"steps": 50}}`; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"--set {text!r}: expected key=value, such as sampling.steps=50")
    try:
        tree: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"--set {text!r}: the value is not YAML") from error
    return leaf(key.strip(), tree)


def leaf(key: str, value: Any) -> dict[str, Any]:
    """A tree with one leaf, by its dotted key."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return dict(value)


def merge(
    tree: Mapping[str, Any], over: Mapping[str, Any], section: type[BaseModel] = Settings
) -> dict[str, Any]:
    """`tree` with the sections and values of `over` laid over it; a value that is a mapping is replaced."""
    merged = dict(tree)
    for key, value in over.items():
        old = merged.get(key)
        if key == "guidance" and isinstance(value, Mapping) and isinstance(old, int | float):
            old = {"scale": old}  # as bundles of before say it
        inner = _subsection(section, key)
        if inner and isinstance(old, Mapping) and isinstance(value, Mapping):
            value = merge(old, value, inner)
        merged[key] = value
    return merged


def _subsection(section: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The section under a key; None where the key is a value or unknown."""
    field = section.model_fields.get(key)
    annotation = field.annotation if field else None
    inner = (a for a in (annotation, *get_args(annotation)) if isinstance(a, type))
    return next((a for a in inner if issubclass(a, BaseModel)), None)


def differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Leaves at which two trees differ, as `key old → new`."""
    found = []
    for key in sorted({*a, *b}):
        old, new = a.get(key), b.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key} {old} → {new}")
    return found


def explain(error: ValidationError) -> str:
    """The first fault of a tree in one line: key, value, what is allowed."""
    fault = error.errors()[0]
    location = [part for part in fault["loc"] if part not in {"int", "literal['auto']"}]
    key = ".".join(str(part) for part in location) or "settings"
    if fault["type"] == "extra_forbidden":
        names = ", ".join(_section(location[:-1]).model_fields)
        return f"{key}: unknown key; allowed here: {names}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return message if "." in message.split()[0] else f"{key}: {message}"
    return f"{key} = {fault['input']!r}: {message[0].lower()}{message[1:]}"


def _section(location: Iterable[Any]) -> type[BaseModel]:
    section: type[BaseModel] = Settings
    for part in location:
        section = _subsection(section, str(part)) or section
    return section


def parse_size(text: str) -> tuple[int, int]:
    """`512` or `1024x512` (width × height) → (height, width) in pixels; `UserError` otherwise."""
    parts = str(text).lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(
        part.strip().isascii() and part.strip().isdecimal() and int(part) > 0 for part in parts
    ):
        raise UserError(f"size {text!r}: expected S or WxH in pixels, such as 2048 or 2048x1024")
    return int(parts[-1]), int(parts[0])
