"""A lone escape is told from an arrow key by waiting: not longer than it takes."""

from __future__ import annotations

import os
import time

import pytest

from tui_lab.driver import LabDriver, Soon
from tui_lab.launch import _driver


def test_input_is_looked_at_again_soon_and_then_rarely() -> None:
    reader, writer = os.pipe()
    selector = Soon()
    selector.register(reader, 1)
    os.write(writer, b"\x1b")
    assert selector.select(30.0)
    os.read(reader, 1)
    started = time.perf_counter()
    for _ in range(Soon.QUIET):
        assert selector.select(30.0) == []
    assert time.perf_counter() - started < 5.0
    started = time.perf_counter()
    assert selector.select(0.3) == []
    assert time.perf_counter() - started >= 0.29


def test_another_driver_that_was_asked_for_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _driver() is LabDriver
    monkeypatch.setenv("TEXTUAL_DRIVER", "somewhere:Else")
    assert _driver() is None
