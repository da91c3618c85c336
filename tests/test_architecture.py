"""What the house promises of its structure: where Ray may be, and which way the arrows go."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "diffgen"
MODULES = {
    ".".join(("diffgen", *path.relative_to(ROOT).with_suffix("").parts)): path
    for path in sorted(ROOT.rglob("*.py"))
    if not path.name.startswith("__")
}
WITH_RAY = {"diffgen.synthesis.pool"}  # all others import it late, where work is launched
TABLE = ROOT.parent / "CONTRIBUTING.md"
VERSION = "__version__"


def may_import() -> dict[str, set[str]]:
    """Module or package of `diffgen/` → those it may import, by the table in CONTRIBUTING.md."""
    table: dict[str, set[str]] = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `diffgen/"):
            first, _, last = line.strip("| ").split(" | ")
            names = re.findall(r"`(?:diffgen/)?(\w+)(?:\.py|/)`", first)
            table |= {name: set(last.split(", ")) for name in names}
    return table


MAY_IMPORT = may_import()


def imports(path: Path) -> set[str]:
    """Modules and packages of `diffgen/` that a file imports, now or late."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {module.split(".")[1] for module in modules if module.startswith("diffgen.")}
    return found - {VERSION}


def test_everything_below_the_launch_imports_without_ray() -> None:
    names = sorted(set(MODULES) - WITH_RAY)
    code = f"""
import importlib, sys
sys.modules["ray"] = None
for name in {names!r}:
    importlib.import_module(name)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_inline_runs_without_ray(tiny_bundle: Path, tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["ray"] = None
sys.argv = ["diffgen", "synthesize", "--bundle", {str(tiny_bundle)!r}, "--inline", "--n", "1", "--size", "32"]
from diffgen.cli import main
main()
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)
    assert (tmp_path / "out" / "manifest.parquet").exists()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_arrows_go_one_way(name: str) -> None:
    package = name.split(".")[1]
    allowed = MAY_IMPORT[package]
    assert allowed == {"everything"} or imports(MODULES[name]) <= allowed - {"none"} | {package}


def test_the_table_knows_every_module_and_has_no_circle() -> None:
    assert set(MAY_IMPORT) == {name.split(".")[1] for name in MODULES}
    assert [name for name, allowed in MAY_IMPORT.items() if allowed == {"everything"}] == ["cli"]
    below = {name: allowed - {"none"} for name, allowed in MAY_IMPORT.items() if name != "cli"}
    assert set().union(*below.values()) <= set(below)
    assert list(TopologicalSorter(below).static_order())


def test_an_import_is_seen_wherever_it_is(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(
        "import diffgen.data.scan\nimport torch\nfrom diffgen import config, __version__\n"
        "def late():\n    from diffgen.models.unet import ImageUNet\n"
    )
    assert imports(tmp_path / "one.py") == {"data", "config", "models"}


def test_no_two_classes_have_one_name() -> None:
    """One word for one thing: docs/glossary.md."""
    places: dict[str, list[str]] = {}
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(name)
    assert not {name: where for name, where in places.items() if len(where) > 1}
