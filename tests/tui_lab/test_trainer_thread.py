"""The training thread: events out, commands in, and no way of dying in silence."""

from __future__ import annotations

import pytest

from engine.control import Pause, Resume, Stop
from engine.errors import EngineError
from engine.events import Failed, Finished
from tests.tui_lab.fakes import FakeSession, config
from tui_lab.trainer_thread import TrainerThread


def started(session: FakeSession, **values) -> TrainerThread:
    thread = TrainerThread(session)
    thread.start("run_training", None, config(**values), name=None, preset="micro")
    return thread


def test_a_stop_ends_the_thread_with_a_finished_event():
    thread = started(FakeSession())
    thread.put(Stop())
    assert thread.wait(5)
    assert isinstance(thread.events[-1], Finished)
    assert not thread.active


def test_only_one_run_trains_at_a_time():
    thread = started(FakeSession())
    with pytest.raises(EngineError, match="training already"):
        thread.start("run_training", None, config())
    thread.put(Stop())
    assert thread.wait(5)


def test_a_second_run_does_not_get_the_first_ones_commands():
    thread = started(FakeSession())
    thread.put(Stop())
    assert thread.wait(5)
    thread.put(Stop())  # comes too late for the first
    thread.events.clear()
    thread.start("run_training", None, config(train__max_steps=3))
    assert thread.wait(5)
    assert thread.events[-1].reason == "completed"


@pytest.mark.parametrize(
    "error", [ValueError("bad"), SystemExit(1), MemoryError(), KeyboardInterrupt()]
)
def test_whatever_kills_the_thread_is_said(error: BaseException):
    thread = started(FakeSession(fail_at=3, error=error))
    assert thread.wait(5)
    failed = thread.events[-1]
    assert isinstance(failed, Failed)
    assert type(error).__name__ in failed.title and "Traceback" in failed.traceback


def test_an_error_that_the_engine_has_said_is_not_said_twice():
    thread = started(FakeSession(fail_at=3))
    assert thread.wait(5)
    assert sum(isinstance(event, Failed) for event in thread.events) == 1


def test_paused_says_what_was_asked_for():
    thread = started(FakeSession())
    thread.put(Pause())
    assert thread.paused
    thread.put(Resume())
    assert not thread.paused
    thread.put(Stop())
    assert thread.wait(5)
