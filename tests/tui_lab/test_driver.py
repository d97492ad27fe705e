"""A lone escape is told from an arrow key by waiting: not longer than it takes."""

from __future__ import annotations

import os
import threading
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


def test_giving_back_waits_for_the_event_loop_that_is_at_it() -> None:
    """Asked twice to leave, the process ends right after `give_back`: not in the middle of that."""
    driver = LabDriver.__new__(LabDriver)
    driver.exit_event, driver._changing = threading.Event(), threading.RLock()
    driver.drawing, driver._writer_thread, driver._found = False, None, None
    begun, restored = threading.Event(), []

    def restore() -> None:
        with driver._changing:
            begun.set()
            time.sleep(0.1)
            restored.append(True)

    threading.Thread(target=restore).start()
    assert begun.wait(5.0)
    driver.give_back()
    assert restored
