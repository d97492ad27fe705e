"""Signals that are answered although the main thread cannot run a handler."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time

import pytest

from tui_lab.signals import SignalWatch


def test_a_signal_is_answered_while_the_main_thread_computes_in_c() -> None:
    answered: list[float] = []
    with SignalWatch([signal.SIGUSR1], lambda number: answered.append(time.monotonic())):
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000)  # no Python handler runs meanwhile
        done = time.monotonic()
        assert answered and answered[0] < done


def test_each_signal_is_answered_and_others_are_not() -> None:
    answered: list[int] = []
    with SignalWatch([signal.SIGUSR1], answered.append):
        before = signal.signal(signal.SIGUSR2, lambda *_: None)
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
            os.kill(os.getpid(), number)
            time.sleep(0.05)
        signal.signal(signal.SIGUSR2, before)
    assert answered == [signal.SIGUSR1] * 2


def test_an_answer_that_fails_does_not_end_the_watch(capsys: pytest.CaptureFixture[str]) -> None:
    answered: list[int] = []

    def answer(number: int) -> None:
        answered.append(number)
        raise ValueError("no such run")

    with SignalWatch([signal.SIGUSR1], answer):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.05)
    assert len(answered) == 2
    assert "no such run" in capsys.readouterr().err


def test_what_was_there_before_is_put_back() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with SignalWatch([signal.SIGUSR1], lambda number: None):
        assert signal.getsignal(signal.SIGUSR1) is not before
    assert signal.getsignal(signal.SIGUSR1) is before
    assert signal.set_wakeup_fd(-1) == -1
