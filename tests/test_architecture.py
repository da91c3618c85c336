"""What the house promises of its structure: where Ray may be, and which way the arrows go."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "diffgen"
MODULES = {
    ".".join(("diffgen", *path.relative_to(ROOT).with_suffix("").parts)): path
    for path in sorted(ROOT.rglob("*.py"))
    if path.name != "__init__.py"
}
WITH_RAY = {"diffgen.synthesis.pool"}  # all others import it late, where work is launched
OURS = {"labels", "appearance", "config", "errors"}
AT_WORK = OURS | {"cluster", "files", "progress"}
MAY_IMPORT = {
    "models": OURS | {"models"},
    "sampling": {"sampling", "models", "labels", "errors"},
    "data": AT_WORK | {"data"},
    "training": AT_WORK | {"training", "data", "sampling", "models"},
    "synthesis": AT_WORK | {"synthesis", "sampling", "models"},
    "evaluation": AT_WORK | {"evaluation", "synthesis", "data", "sampling", "models"},
}


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
    if package not in MAY_IMPORT:
        return
    tree = ast.parse(MODULES[name].read_text())
    imported = [
        f"{node.module}.{alias.name}" if node.module == "diffgen" else node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("diffgen")
        for alias in node.names
    ]
    wrong = {
        module for module in imported if module.split(".")[1] not in MAY_IMPORT[package] | {"__version__"}
    }
    assert not wrong


def test_no_two_classes_have_one_name() -> None:
    """One word for one thing: docs/glossary.md."""
    places: dict[str, list[str]] = {}
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(name)
    assert not {name: where for name, where in places.items() if len(where) > 1}
