"""Threads: the fewest that are as fast as any, measured once, kept by checkpoints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from engine import machine, threads, user_cache
from engine.checkpoints import list_checkpoints
from engine.checkpoints.layout import META
from engine.checkpoints.tensors import read_json
from engine.config import Config
from engine.control import Inbox
from engine.events import Event, RunStarted
from engine.lab import Lab
from engine.session import resume_training, run_training
from tui_lab.cli import app


@pytest.fixture
def sixteen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of sixteen cores that nobody has measured."""
    monkeypatch.setenv("TUI_LAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(machine, "cores", lambda: 16)


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ({16: 100.0, 15: 95.0, 8: 60.0}, 16),
        ({16: 100.0, 15: 99.0, 8: 60.0}, 15),  # a core for the screen, for nothing
        ({16: 80.0, 15: 81.0, 8: 100.0, 4: 60.0}, 8),  # two threads a core
        ({2: 0.0, 1: 0.0}, 1),
    ],
)
def test_the_fewest_that_are_as_good(rates: dict[int, float], chosen: int) -> None:
    assert threads.choose(rates) == chosen


def test_candidates() -> None:
    assert threads.candidates(16) == [16, 15, 8, 4, 2]
    assert threads.candidates(3) == [3, 2, 1]


@pytest.mark.usefixtures("sixteen")
def test_measured_once_by_precision_and_then_known_without_torch() -> None:
    asked: list[int] = []

    def rate(count: int, precision: str) -> float:
        asked.append(count)
        return 100.0 if count == 8 else 50.0

    assert threads.usual_threads("bfloat16") == 16
    assert threads.measured_threads("bfloat16", rate) == 8
    assert threads.usual_threads("bfloat16") == 8
    assert threads.measured_threads("bfloat16", rate) == 8 and asked == [16, 15, 8, 4, 2]
    assert threads.usual_threads("float32") == 16


@pytest.mark.usefixtures("sixteen")
@pytest.mark.parametrize("spoilt", ["", "[1]", '{"x": "y"}'])
def test_what_is_spoilt_is_measured_again(spoilt: str) -> None:
    threads.measured_threads("float32", lambda count, precision: 1.0)
    user_cache.path(threads.CACHE).write_text(spoilt)
    assert threads.usual_threads("float32") == 16


def test_on_two_cores_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 2)
    assert threads.measured_threads("float32", lambda count, precision: 1 / count) == 2


def test_the_real_rate_is_one() -> None:
    before = torch.get_num_threads()
    try:
        assert threads.layer_rate(1, "float32", 0.02) > 1
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_resumed_run_computes_with_the_threads_it_had(
    small_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine's measurement, or none, must not change how its sums round."""
    config = Config().with_values(
        {
            "model.n_layer": 1,
            "model.n_head": 1,
            "model.n_embd": 8,
            "model.context_length": 8,
            "data.corpus": "small",
            "data.tokenizer": "char",
            "train.max_steps": 2,
            "train.device": "cpu",
            "sample.every": 0,
        }
    )
    seen: list[Event] = []
    before = torch.get_num_threads()
    try:
        monkeypatch.setattr("engine.session.measured_threads", lambda precision: 1)
        run_training(small_lab, config, emit=seen.append, inbox=Inbox(), name="r")
        (saved,) = list_checkpoints(small_lab.checkpoints / "r")
        assert read_json(saved.path / META)["threads"] == 1
        monkeypatch.setattr("engine.session.measured_threads", lambda precision: 2)
        for more, fixed in ((4, {}), (6, {"train.threads": 2})):
            overrides = {"train.max_steps": more} | fixed
            resume_training(small_lab, "r", overrides=overrides, emit=seen.append, inbox=Inbox())
    finally:
        torch.set_num_threads(before)
    assert [event.threads for event in seen if isinstance(event, RunStarted)] == [1, 1, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP")
@pytest.mark.parametrize(
    ("said", "spins"), [({}, "4000"), ({"OMP_WAIT_POLICY": "active"}, "30000000000")]
)
def test_threads_that_wait_leave_a_few_cores_to_others(said: dict[str, str], spins: str) -> None:
    """As OpenMP itself tells it, when the command loads torch."""
    command = [
        *(sys.executable, "-c"),
        "import os\n"
        "os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])\n"
        "from tui_lab.__main__ import main\n"
        "main()",
        "doctor",
    ]
    silent = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))
    }
    environment = {**silent, **said, "OMP_DISPLAY_ENV": "verbose"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert f"GOMP_SPINCOUNT = '{spins}'" in result.stderr


@pytest.mark.parametrize(("command", "short"), [("generate", False), ("train", True)])
def test_a_text_alone_waits_as_openmp_does(
    command: str, short: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: machine.FEW_CORES)
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    CliRunner().invoke(app, [command, "--help"])
    assert ("GOMP_SPINCOUNT" in os.environ) is short


def test_many_cores_wait_as_openmp_does(sixteen: None) -> None:
    assert machine.short_waits() == {}
