"""Settings put together: one typed tree for all commands.

A tree is made of the defaults, the settings saved with the data or the bundle, a preset or a YAML file, and
`--set key=value` on the command line, each over the one before. A key that does not exist, a value of the
wrong type and a combination that cannot work are one line that names key, value and what is allowed.
"""

# ruff: noqa: F403, F405 (all sections are known as `config.NAME`)

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from diffgen.errors import UserError, one_line
from diffgen.places import presets
from diffgen.schema import *
from diffgen.schema_downstream import *
from diffgen.schema_training import *


class Settings(SettingsSection):
    """The whole tree."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    gpu: bool | None = None
    """none: GPUs are used where there are some; true: there must be one, and a cluster that scales from zero
    is asked for it; false (`--cpu`): they are not."""
    threads: Positive | None = None
    """CPU threads per training worker, sampler (bytes depend on them), or actor of an evaluation. none: 2 per
    training worker, 1 per sampler or actor."""
    places: Places = Places()
    prepare: Prepare = Prepare()
    autoencoder: Autoencoder = Autoencoder()
    image_model: ImageModel = ImageModel()
    mask_model: MaskModel = MaskModel()
    diffusion: Diffusion = Diffusion()
    training: Training = Training()
    sampling: Sampling = Sampling()
    synthesis: Synthesis = Synthesis()
    evaluation: Evaluation = Evaluation()
    filter: Filter = Filter()

    @property
    def image_patch_px(self) -> int:
        """Side of the image U-Net's base patch in image pixels; a wide one fills a stored patch."""
        return self.image_model.patch * self.autoencoder.factor

    @property
    def widest_patch_px(self) -> int:
        """Side in image pixels of the largest crop that the image U-Net is trained on."""
        return max(side for _, side in self.image_model.sides) * self.autoencoder.factor

    @property
    def mask_pixel_px(self) -> int:
        """Side of a mask pixel in image pixels."""
        return round(self.mask_model.pixel_um / self.prepare.mpp)

    def on(self, gpu: bool) -> Self:
        """With what is left to the machine settled: GPUs, threads, precision and micro-batch of sampling."""
        threads = self.threads or 1
        settled = {
            "training": {"gpu": gpu, "threads": self.threads or 2},
            "sampling": vars(self.sampling.on(gpu)) | {"threads": threads},
            "synthesis": {"gpu": gpu},
            "evaluation": {"gpu": gpu, "threads": threads},
        }
        return self.model_copy(
            update={name: getattr(self, name).model_copy(update=to) for name, to in settled.items()}
        )

    @model_validator(mode="after")
    def _resident(self) -> Self:
        if self.training.resident and self.autoencoder.latents != "stored":
            raise ValueError("training.resident needs autoencoder.latents stored")
        return self

    @model_validator(mode="after")
    def _scales(self) -> Self:
        ratio = self.mask_model.pixel_um / self.prepare.mpp
        if ratio < 1 or abs(ratio - round(ratio)) > 1e-6:
            raise ValueError(
                f"mask_model.pixel_um {self.mask_model.pixel_um} must be a whole multiple "
                f"of prepare.mpp {self.prepare.mpp}"
            )
        return self

    def dump(self) -> str:
        """The tree as YAML, as it is saved with every run."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


RENAMED = {
    "evaluation.use": "evaluation.downstream",
    "evaluation.methods": "evaluation.baselines",
    "evaluation.methods_images": "evaluation.baseline_images",
    "evaluation.methods_side": "evaluation.baseline_side",
    "training.gpu": "gpu",
    "synthesis.gpu": "gpu",
    "evaluation.gpu": "gpu",
    "training.threads": "threads",
    "sampling.threads": "threads",
    "evaluation.threads": "threads",
}
"""Keys under their names of release 0.1, which are understood until 0.3."""
PARTS = {"use": "downstream", "methods": "baselines"}
"""The same of the values of `evaluation.parts`."""
CONSTANT: dict[str, Any] = {
    "diffusion.noise_mean": 0.3,
    "diffusion.noise_deviation": 1.0,
    "evaluation.k": 3,
    # Of a run's autoencoder.yaml without the part's name.
    **{f"training.{part}betas": [0.9, 0.99] for part in ("image.", "mask.", "autoencoder.", "")},
}
"""What were settings that nobody set, and their value beside the code that uses it: understood until 0.3."""
OF_THE_MACHINE = ("gpu", "threads")
"""What was saved of these on one machine says nothing of another."""
FORMER_DEFAULTS = {"synthesis": {"images_per_shard": 64}}
"""What was saved of these is most likely what nobody chose: the default of the day."""


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
    saved = {key: value for key, value in current(under or {}).items() if key not in OF_THE_MACHINE}
    for section, former in FORMER_DEFAULTS.items():
        if isinstance(of := saved.get(section), Mapping):
            saved[section] = {key: value for key, value in of.items() if former.get(key) != value}
    tree = merge(saved, given(base, overrides))
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
    tree = dict(tree)
    for old, new in RENAMED.items():
        tree, found = _taken_out(tree, old.split("."))
        for value in found:
            tree = merge(leaf(new, value), tree)
            if say:
                print(f"{old} is now called {new}", file=sys.stderr)
    for old, constant in CONSTANT.items():
        tree, found = _taken_out(tree, old.split("."))
        if say and found and found != [constant]:
            print(f"{old} is no setting any more: it is {constant}", file=sys.stderr)
    evaluation = tree.get("evaluation")
    if isinstance(evaluation, Mapping) and isinstance(evaluation.get("parts"), list):
        tree["evaluation"] = {**evaluation, "parts": [PARTS.get(part, part) for part in evaluation["parts"]]}
    return tree


def _taken_out(tree: Mapping[str, Any], path: Sequence[str]) -> tuple[dict[str, Any], list[Any]]:
    """A tree without the value at a path, and that value, if there is one."""
    name, *below = path
    if name not in tree or (below and not isinstance(tree[name], Mapping)):
        return dict(tree), []
    if not below:
        return {key: value for key, value in tree.items() if key != name}, [tree[name]]
    inner, found = _taken_out(tree[name], below)
    return {**tree, name: inner}, found


def validate(tree: Mapping[str, Any]) -> Settings:
    try:
        return Settings.model_validate(current(tree))
    except ValidationError as error:
        raise UserError(explain(error)) from error


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        return parse_yaml(path.read_bytes(), str(path))
    except OSError as error:
        raise UserError(f"{path}: not a readable YAML file ({one_line(error)})") from error


def parse_yaml(text: str | bytes, name: str) -> dict[str, Any]:
    """Settings of a file of that name, as they stand in it."""
    try:
        tree = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{name}: not a readable YAML file ({one_line(error)})") from error
    if not isinstance(tree, dict):
        raise UserError(f"{name}: settings are a mapping of keys, not {type(tree).__name__}")
    return tree


def preset(name: Path | str) -> Path:
    """Path of a preset by its name (`demo`), or of a YAML file."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        return path
    known = presets()
    if str(name) not in known:
        raise UserError(f"preset {str(name)!r} is unknown; there are: {', '.join(known)}, or any .yaml file")
    return known[str(name)]


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
        fields = _section(location[:-1]).model_fields
        names = ", ".join(name for name, field in fields.items() if not field.exclude)
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
