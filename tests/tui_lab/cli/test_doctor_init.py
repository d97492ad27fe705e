"""`doctor` and `init`, and that the commands of this family answer --help without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine import machine
from engine.errors import InputError
from engine.lab import Lab
from engine.status import own_mark
from tui_lab import screen_cost
from tui_lab.cli import app, doctor
from tui_lab.screen_cost import ScreenCost


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab.init(tmp_path / "lab")


def test_doctor_checks_everything_and_passes_here(lab: Lab) -> None:
    result = CliRunner().invoke(app, ["--lab", str(lab.root), "doctor", "--json"])
    assert result.exit_code == 0
    found = {record["name"]: record for record in map(json.loads, result.stdout.splitlines())}
    assert {"packages", "terminal", "lab", "disk", "gpt2", "memory"} <= set(found)
    assert {"device", "precision", "threads"} <= set(found)
    assert "torch" in found["packages"]["found"]
    for record in found.values():
        assert record["state"] in ("ok", "warn")
        assert bool(record["remedy"]) == (record["state"] != "ok")


def test_what_is_wrong_comes_with_a_remedy(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    (check, _) = doctor._lab(lab)
    assert check.state == "fail"
    assert "configs, corpus, checkpoints" in check.found
    assert "tui-lab init" in check.remedy


def test_a_gpu_that_torch_cannot_use_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commonest disappointment: a GPU in the machine, and a torch for CPUs beside it."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(machine, "has_nvidia_driver", lambda: True)
    check = next(check for check in doctor._torch() if check.name == "device")
    assert check.state == "warn"
    assert "install torch for CUDA" in check.remedy


@pytest.mark.parametrize(
    ("environment", "state", "found"),
    [
        ({"NO_COLOR": "1"}, "ok", "NO_COLOR"),
        ({"COLORTERM": "truecolor"}, "ok", "16 million"),
        ({"COLORTERM": "", "TERM": "screen-256color"}, "ok", "256"),
        ({"COLORTERM": "", "TERM": "vt100"}, "warn", "TERM=vt100"),
    ],
)
def test_terminal_colours(
    environment: dict[str, str], state: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "on_terminal", lambda: True)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    check = next(check for check in doctor._terminal() if check.name == "colours")
    assert check.state == state
    assert found in check.found


def test_a_small_terminal_is_told_the_size_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "on_terminal", lambda: True)
    monkeypatch.setattr(doctor.shutil, "get_terminal_size", lambda: os.terminal_size((60, 20)))
    check = next(doctor._terminal())
    assert check.state == "warn"
    assert "80" in check.remedy


def test_what_the_screen_has_cost_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUI_LAB_CACHE_DIR", str(tmp_path))
    assert "has not been open" in doctor._screen().found
    facts = {"time": 1_760_000_000.0, "seconds": 552.0, "bytes": 1_234_567, "share": 0.014}
    facts |= {"bytes_per_second": 2345.0, "looks_per_second": 4.0, "columns": 120, "lines": 36}
    mine = ScreenCost(pid=os.getpid(), mark=own_mark(), slow_link=True, **facts)
    screen_cost.keep(mine)
    found = doctor._screen().found
    for part in ("2.3 kB/s", "1.2 MB in 9:12", "1.4% of a core", "120 × 36", "slow link"):
        assert part in found
    assert f"process {os.getpid()}" in found
    screen_cost.keep(replace(mine, mark="another"))
    assert "ended" in doctor._screen().found


def test_init_makes_a_lab_and_leaves_what_is_there(tmp_path: Path) -> None:
    for _ in range(2):
        result = CliRunner().invoke(app, ["init", str(tmp_path / "new")])
        assert result.exit_code == 0
        (tmp_path / "new" / "configs" / "own.toml").write_text("keep")
    assert (tmp_path / "new" / "configs" / "own.toml").read_text() == "keep"
    assert (tmp_path / "new" / "checkpoints").is_dir()


def test_init_on_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["init", str(tmp_path / "file")])
    assert isinstance(result.exception, InputError)
    assert "file" in result.exception.title


def test_help_and_the_quick_commands_do_not_load_torch(lab: Lab) -> None:
    """One process for all of them: torch would cost each a second."""
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from tui_lab.cli import app\n"
        "for line in sys.stdin.read().splitlines():\n"
        "    result = CliRunner().invoke(app, line.split())\n"
        "    assert result.exit_code == 0, (line, result.output, result.exception)\n"
        "    assert 'torch' not in sys.modules, line\n"
        "    assert 'textual' not in sys.modules, line\n"
    )
    commands = ["plan --help", "doctor --help", "init --help", "config --help"]
    commands += [f"config {name} --help" for name in ("list", "show", "validate")]
    commands += [f"--lab {lab.root} {rest}" for rest in ("plan", "config list", "config show char")]
    result = subprocess.run(
        [sys.executable, "-c", code],
        input="\n".join(commands),
        text=True,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
