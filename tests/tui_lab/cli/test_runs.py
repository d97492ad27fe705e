"""`tui-lab runs`: what is alive, where, since when, what it does and how fast."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest

from engine.config import Config
from engine.lab import Lab
from engine.runs import RunFolder
from engine.status import Status, own_status, write_status
from tests.tui_lab.cli.processes import command, environment, tui_lab
from tests.tui_lab.terminals import Terminal, shown


def make(lab: Lab, name: str, status: Status) -> Path:
    with RunFolder.create(lab, name, Config(), {"preset": "micro"}) as folder:
        write_status(folder.path, status, durable=False)
        return folder.path


def alive(phase: str = "training", **changes: object) -> Status:
    """A run of this very process."""
    status = own_status()
    status.step, status.max_steps, status.loss = 1234, 5000, 2.5
    status.phase, status.step_seconds, status.since = phase, 0.125, time.time() - 7200
    for key, value in changes.items():
        setattr(status, key, value)
    return status


@pytest.fixture
def runs_lab(lab: Lab) -> Lab:
    make(lab, "done", Status("finished", step=10, max_steps=10))
    make(lab, "quick", alive("evaluating", phase_done=1, phase_total=4))
    make(lab, "stuck", alive(moved=time.monotonic() - 100))
    make(lab, "there", alive(host="elsewhere", pid=77))
    make(lab, "gone", alive(process="another/1"))
    return lab


def test_what_is_alive_where_and_how(runs_lab: Lab) -> None:
    done = tui_lab(runs_lab.root, "runs", "--alive", "--sort", "name")
    assert done.returncode == 0, done.stderr
    header, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert header[:7] == ["name", "status", "phase", "a step", "since", "process", "step"]
    here = f"{os.getpid()} on {socket.gethostname()}"
    told = {row[0]: row[1:7] for row in rows}
    assert set(told) == {"quick", "stuck", "there"}
    evaluating = ["● running", "evaluating 25 %", "125 ms", "2 h ago", here, "1 234 / 5 000"]
    assert told["quick"] == evaluating
    assert told["stuck"][0].startswith("! stalled ") and told["stuck"][0].endswith("min")
    assert told["there"][4] == "77 on elsewhere"


def test_the_dead_say_nothing_of_a_process(runs_lab: Lab) -> None:
    rows = [line.split("\t") for line in tui_lab(runs_lab.root, "runs").stdout.splitlines()]
    told = {row[0]: row[1:6] for row in rows}
    assert told["gone"] == ["✗ crashed", "–", "–", "–", "–"]
    assert told["done"] == ["✓ finished", "–", "–", "–", "–"]


def test_json_has_the_fields(runs_lab: Lab) -> None:
    done = tui_lab(runs_lab.root, "runs", "--alive", "--json", "--filter", "stuck")
    record = json.loads(done.stdout)
    assert (record["status"], record["phase"], record["pid"]) == (
        "stalled",
        "training",
        os.getpid(),
    )
    assert record["host"] == socket.gethostname() and record["step_seconds"] == 0.125
    assert 100 <= record["still"] < 160
    assert abs(time.time() - 7200 - record["since"]) < 60


def test_nothing_alive_is_said(lab: Lab) -> None:
    make(lab, "done", Status("finished"))
    done = tui_lab(lab.root, "runs", "--alive")
    assert done.stdout == "" and "no run is alive" in done.stderr


@pytest.mark.parametrize(
    ("columns", "there", "absent"),
    [
        (60, ["name", "status", "step"], ["size", "saved", "params"]),
        (80, ["name", "status", "step", "process"], ["size", "saved", "params"]),
        (220, ["name", "status", "phase", "a step", "since", "process", "saved", "size"], []),
    ],
)
def test_a_narrow_terminal_keeps_the_essentials(
    runs_lab: Lab, columns: int, there: list[str], absent: list[str]
) -> None:
    surroundings = environment() | {"COLUMNS": str(columns), "TERM": "xterm"}
    terminal = Terminal(*command(runs_lab.root, "runs")[1:], **surroundings)
    terminal.resize(columns, 36)
    try:
        terminal.until(terminal.ended)
        terminal.read_for(0.2)
    finally:
        terminal.close()
    lines = [line.rstrip() for line in shown(terminal.written, columns) if line.strip()]
    heads = [word for word in (*there, *absent) if word in lines[0]]
    assert heads == there, lines
    assert len(lines) == 2 + 5 + 1  # heading and rule, ours and the shipped one: none is folded
