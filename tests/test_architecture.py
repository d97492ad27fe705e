"""The arrow `tui_lab → engine → torch`, and what must answer without torch.

Import contracts read the source; subprocesses look at `sys.modules`, where nothing can hide.
"""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine
import tui_lab

ROOT = Path(__file__).parents[1]

# The modules that compute. Everything else in the engine reads or describes, and loads no torch.
HEAVY = {
    "engine.assembly",
    "engine.checkpoints.load",
    "engine.checkpoints.save",
    "engine.checkpoints.snapshot",
    "engine.evaluation",
    "engine.generation.generate",
    "engine.generation.load",
    "engine.generation.sampling",
    "engine.keeper",
    "engine.meter",
    "engine.objectives",
    "engine.optim",
    "engine.trainer",
}
HEAVY_PACKAGES = ("engine.model",)

# Imports modules one by one and names the first that brings torch along.
PROBE = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    if "torch" in sys.modules:
        sys.exit(f"{name} loads torch")
"""

HELP = """
import sys
import typer.main
from tui_lab.cli import app

def paths(command, path=()):
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from paths(child, (*path, name))

found = list(paths(typer.main.get_command(app)))
for path in found:
    app([*path, "--help"], standalone_mode=False)
    if "torch" in sys.modules:
        sys.exit(f"tui-lab {' '.join(path)} --help loads torch")
print("\\ncommands:", len(found))
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def modules(package) -> list[str]:
    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    return [package.__name__, *sorted(module.name for module in found)]


def is_heavy(name: str) -> bool:
    return name in HEAVY or any(name == p or name.startswith(f"{p}.") for p in HEAVY_PACKAGES)


def trees(package: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def test_import_contracts():
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


def test_what_reads_or_describes_loads_no_torch():
    """Lists, help and the first paint must never wait a second for torch."""
    light = [name for name in modules(engine) if not is_heavy(name)]
    assert len(light) > 20
    result = python(PROBE, *light)
    assert result.returncode == 0, result.stderr


def test_the_list_of_heavy_modules_is_true():
    """A name that no longer needs torch, or no longer exists, must leave the list."""
    names = set(modules(engine))
    assert names >= HEAVY
    for name in sorted(HEAVY):
        path = ROOT / (name.replace(".", "/") + ".py")
        imported = _top_level_imports(ast.parse(path.read_text(encoding="utf-8")))
        heavy = [n for n in imported if n == "torch" or n.startswith("torch.") or is_heavy(n)]
        assert heavy, f"{name} imports nothing heavy at its top level"


def _top_level_imports(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def test_the_interface_and_every_screen_load_no_torch():
    """The app paints before torch is there; torch is imported in the threads that compute."""
    result = python(PROBE, *(name for name in modules(tui_lab) if name != "tui_lab.__main__"))
    assert result.returncode == 0, result.stderr


def test_only_the_command_line_names_torch():
    """Screens, widgets and the app's threads reach torch through the engine alone."""
    for path, tree in trees("tui_lab"):
        if "cli" in path.parts:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert not any(alias.name.split(".")[0] == "torch" for alias in node.names), path
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] != "torch", path


def test_no_help_loads_torch():
    """`--help` of every command there is, found by walking the command tree."""
    result = python(HELP)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.rsplit("commands:", 1)[1]) > 20


def test_the_engine_never_prints():
    """What it has to say leaves as events, errors and return values."""
    for path, tree in trees("engine"):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path}:{node.lineno}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                written = (node.value.id, node.attr)
                assert written not in {("sys", "stdout"), ("sys", "stderr")}, (
                    f"{path}:{node.lineno} writes to {'.'.join(written)}"
                )


@pytest.mark.parametrize("package", ["engine", "tui_lab"])
def test_no_file_holds_two_nouns(package):
    """Above 400 lines a file is two files; the app itself stays under 250."""
    for path in (ROOT / package).rglob("*.py"):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        limit = 250 if path == ROOT / "tui_lab" / "app.py" else 400
        assert lines <= limit, f"{path.relative_to(ROOT)} has {lines} lines"


@pytest.mark.parametrize("package", ["engine", "tui_lab"])
def test_every_module_says_what_it_is(package):
    for path, tree in trees(package):
        assert ast.get_docstring(tree), f"{path.relative_to(ROOT)} has no docstring"
