"""What calibrations have taught: kept for the very device and mode, and hostile until checked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine import machine
from engine.correction import Correction, forget, remember, remembered
from engine.planner import DeviceFacts
from engine.user_cache import MOST

HERE = DeviceFacts("cpu", "a processor, 2 cores", "bfloat16", threads=2)
LEARNT = Correction(1.07, -12_000_000, "2026-11-25", "128×4×4, context 64, batch 12")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUI_LAB_CACHE_DIR", str(tmp_path / "cache"))


def test_it_is_of_this_device_precision_threads_and_mode_alone() -> None:
    """A correction that came to another kind of step would make the plan worse than none."""
    assert remembered(HERE, False) is None
    assert remember(HERE, False, LEARNT)
    assert remembered(HERE, False) == LEARNT
    assert remembered(HERE, True) is None
    for other in (
        replace(HERE, precision="float32"),
        replace(HERE, threads=1),
        replace(HERE, name="another"),
    ):
        assert remembered(other, False) is None


def test_the_newest_counts() -> None:
    remember(HERE, False, LEARNT)
    newer = replace(LEARNT, time=0.9)
    remember(HERE, False, newer)
    assert remembered(HERE, False) == newer
    assert str(newer) == "corrected by 0.90 from a calibration of 2026-11-25"


def test_forgetting_drops_all_of_this_device_and_no_other() -> None:
    other = replace(HERE, name="another")
    for device in (HERE, other):
        for compiled in (False, True):
            remember(device, compiled, LEARNT)
    assert forget(HERE) == 2
    assert remembered(HERE, True) is None
    assert remembered(other, True) == LEARNT
    assert forget(HERE) == 0


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"time": "x", "memory": 1, "date": "d", "about": "a"},
        {"time": 0.0, "memory": 1, "date": "d", "about": "a"},
        {"time": float("inf"), "memory": 1, "date": "d", "about": "a"},
        {"time": 1.0, "memory": 2**60, "date": "d", "about": "a"},
        "text",
    ],
)
def test_a_spoilt_correction_is_none(values: object) -> None:
    remember(HERE, False, LEARNT)
    file = machine.cache_dir() / "calibrations.json"
    (key,) = json.loads(file.read_text())
    file.write_text(json.dumps({key: values}))
    assert remembered(HERE, False) is None


@pytest.mark.parametrize("text", ["", "[1]", "\x00", "[" * 100_000, "x" * (MOST + 1)])
def test_a_spoilt_file_is_none_and_is_written_over(text: str) -> None:
    file = machine.cache_dir() / "calibrations.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert remembered(HERE, False) is None
    assert remember(HERE, False, LEARNT)
    assert remembered(HERE, False) == LEARNT


def test_a_cache_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file where the folder would be: not even root can make one there."""
    blocked = machine.cache_dir()
    blocked.write_text("")
    assert remember(HERE, False, LEARNT) is False
