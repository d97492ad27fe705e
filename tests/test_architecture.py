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

# The modules that compute, engine.model aside. All others read or describe, and load no torch.
HEAVY = {
    "engine.assembly",
    "engine.bench.generation",
    "engine.bench.limits",
    "engine.bench.run",
    "engine.checkpoints.background",
    "engine.checkpoints.load",
    "engine.checkpoints.save",
    "engine.checkpoints.snapshot",
    "engine.checkpoints.trusted",
    "engine.chunked_loss",
    "engine.evaluation",
    "engine.exchange.export",
    "engine.exchange.gguf",
    "engine.exchange.gguf_tensors",
    "engine.exchange.importing",
    "engine.exchange.weights",
    "engine.flat",
    "engine.generation.across",
    "engine.generation.beam",
    "engine.generation.compiled",
    "engine.generation.compiling",
    "engine.generation.decoding",
    "engine.generation.generate",
    "engine.generation.layout",
    "engine.generation.load",
    "engine.generation.quantised",
    "engine.generation.sampling",
    "engine.generation.scoring",
    "engine.generation.step",
    "engine.guard",
    "engine.keeper",
    "engine.measure",
    "engine.meter",
    "engine.muon",
    "engine.objectives",
    "engine.optim",
    "engine.out_of_memory",
    "engine.parts",
    "engine.trainer",
    "engine.trouble",
}
# Imports modules one by one, torch being out of reach, and tells which ones ask for it. Its error
# is no Exception: a module that catches ImportError must not get away.
PROBE = """
import importlib, sys

class Wanted(BaseException):
    pass

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise Wanted

sys.meta_path.insert(0, NoTorch())
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Wanted:
        print(name)
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


def wants_torch(names: list[str]) -> set[str]:
    result = python(PROBE, *names)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_what_reads_or_describes_loads_no_torch():
    """Lists, help and the first paint must never wait a second for torch.

    The list of heavy modules is exact: another one is a decision, and one that became light leaves.
    """
    heavy = wants_torch(modules(engine))
    model = {name for name in heavy if name.startswith("engine.model")}
    assert "engine.model.gpt" in model
    assert heavy - model == HEAVY


def test_the_interface_and_every_screen_load_no_torch():
    """The app paints before torch is there; torch is imported in the threads that compute."""
    names = modules(tui_lab)
    assert "tui_lab.screens.console" in names
    assert wants_torch([name for name in names if name != "tui_lab.__main__"]) == set()


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
