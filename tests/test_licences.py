"""docs/licences.md names all that is shipped, and all that is installed with it."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "licences.md").read_text("utf-8")


def test_every_dependency_has_a_row() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = {re.split(r"[\[<>=!~; ]", line)[0] for line in project["dependencies"]}
    table = TEXT[TEXT.index("## What is installed") :]
    assert set(re.findall(r"^\| ([\w-]+) \|", table, re.MULTILINE)) - {"package"} == wanted


def test_every_picture_and_every_part_of_a_shipped_bundle_is_named() -> None:
    images = {path.name for path in (ROOT / "docs" / "images").iterdir()}
    assert set(re.findall(r"[\w-]+\.jpg", TEXT)) == images
    weights = list((ROOT / "diffgen" / "bundles").rglob("*.safetensors"))
    parts = {path.parent.name if path.parent.name != "default" else path.name for path in weights}
    assert all(f"{part}`" in TEXT for part in parts)
