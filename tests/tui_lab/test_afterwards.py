"""A run that goes on in lines, told to stop in the moment in which it ends by itself."""

from __future__ import annotations

import signal
from collections import deque
from typing import Any

import pytest

from engine.events import Event, Failed
from tui_lab.afterwards import follow


class Ending:
    """A training thread that has nothing to say until it is over."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque()
        self.over = False

    @property
    def working(self) -> bool:
        return not self.over

    def wait(self, seconds: float) -> None:
        pass


def test_the_last_word_is_heard(capsys: pytest.CaptureFixture[str]) -> None:
    trainer: Any = Ending()
    asked = iter(range(10))

    def signalled() -> int:
        if next(asked) == 1:  # between its events and the question whether it still works
            trainer.over = True
            trainer.events.append(Failed(step=7, title="the disk is full", hint="make room"))
        return signal.SIGINT if trainer.over else 0

    assert follow(trainer, None, signalled) == 1
    assert "the disk is full (make room)" in capsys.readouterr().out
