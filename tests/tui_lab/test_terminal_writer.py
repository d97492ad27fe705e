"""What is written to a terminal: whole or not at all, in order, and never by waiting for it."""

from __future__ import annotations

import os
import pty
import threading
import time
import tty
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tui_lab import terminal_writer
from tui_lab.terminal_writer import CANCEL, LIMIT, TerminalWriter


@pytest.fixture
def terminal() -> Iterator[SimpleNamespace]:
    """A terminal that nobody reads until the test does, and a writer to it."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    it = SimpleNamespace(
        master=master,
        slave=slave,
        caught_up=threading.Event(),
        lost=threading.Event(),
        slow=threading.Event(),
    )
    it.writer = TerminalWriter(slave, it.caught_up.set, it.lost.set, it.slow.set)
    it.writer.start()
    yield it
    it.writer.stop(0.0)
    for descriptor in (it.master, slave):
        if descriptor is not None:
            os.close(descriptor)


def read_all(master: int, until: bytes) -> bytes:
    text, end = b"", time.monotonic() + 10
    while until not in text and time.monotonic() < end:
        text += os.read(master, 1 << 16)
    return text


def frame(number: int) -> str:
    return f"<{number}" + "·" * 5000 + f"{number}>"


def test_a_terminal_that_takes_nothing_holds_nobody_up_and_loses_whole_writes(terminal) -> None:
    started = time.monotonic()
    taken = [number for number in range(300) if terminal.writer.write(frame(number))]
    terminal.writer.write("[mode]", keep=True)
    assert time.monotonic() - started < 1.0
    assert 0 < len(taken) < 20, "what waits is bounded"
    assert not terminal.caught_up.is_set()
    text = read_all(terminal.master, b"[mode]").decode()
    assert text == "".join(frame(number) for number in taken) + "[mode]"
    assert terminal.caught_up.wait(5), "a repaint is asked for"
    assert terminal.writer.write("again")
    assert read_all(terminal.master, b"again") == b"again"


def test_what_waits_is_all_written_at_the_end(terminal) -> None:
    for number in range(5):
        terminal.writer.write(frame(number))
    reader = threading.Thread(target=lambda: terminal.__dict__.update(text=drained()))

    def drained() -> bytes:
        return read_all(terminal.master, b"4>")

    reader.start()
    terminal.writer.stop(5.0)
    reader.join(5)
    assert terminal.text.decode() == "".join(frame(number) for number in range(5))
    assert not terminal.writer.is_alive()
    assert terminal.writer.write("late", keep=True) is False


def test_the_end_does_not_wait_for_a_terminal_that_takes_nothing(terminal) -> None:
    """The last modes still reach it, in the place of what it never took."""
    while terminal.writer.write(frame(7)):
        pass
    terminal.writer.write("[restore]", keep=True)
    started = time.monotonic()
    terminal.writer.stop(0.2)
    assert time.monotonic() - started < 1.0 and not terminal.writer.is_alive()
    text = read_all(terminal.master, b"[restore]")
    assert len(text) < LIMIT and text.endswith(CANCEL + b"[restore]")


def test_a_terminal_that_is_gone_is_told_once(terminal) -> None:
    os.close(terminal.master)
    terminal.master = None
    terminal.writer.write("anything")
    assert terminal.lost.wait(5)
    terminal.writer.join(5)
    assert terminal.writer.write("more", keep=True) is False


def test_other_users_of_the_terminal_still_wait_for_it(terminal) -> None:
    """To write without blocking is the writer's affair alone: the shell shares the terminal."""
    terminal.writer.write("something.")
    read_all(terminal.master, b".")
    assert os.get_blocking(terminal.slave)


def test_what_the_terminal_has_taken_is_counted(terminal) -> None:
    terminal.writer.write("a·b.")
    read_all(terminal.master, b".")
    end = time.monotonic() + 5  # the count follows the write: a reader may be here before it
    while not terminal.writer.written and time.monotonic() < end:
        time.sleep(0.001)
    assert terminal.writer.written == len("a·b.".encode())


def test_a_terminal_that_takes_each_frame_slowly_is_found_out(terminal, monkeypatch) -> None:
    monkeypatch.setattr(terminal_writer, "SLOW_SECONDS", 0.02)
    for number in range(8):
        terminal.writer.write(frame(number))
    end = time.monotonic() + 5
    while not terminal.slow.is_set() and time.monotonic() < end:
        os.read(terminal.master, 1 << 10)
        time.sleep(0.02)
    assert terminal.slow.is_set()


def test_a_terminal_that_stood_still_is_not_called_slow(terminal, monkeypatch) -> None:
    """Somebody pressed ctrl-s, or the laptop slept: the link is as it was."""
    monkeypatch.setattr(terminal_writer, "SLOW_SECONDS", 0.02)
    for number in range(5):
        terminal.writer.write(frame(number))
    terminal.writer.write("[end]", keep=True)
    time.sleep(0.2)
    read_all(terminal.master, b"[end]")
    assert not terminal.slow.is_set()


def test_text_that_no_terminal_can_take_is_replaced(terminal) -> None:
    terminal.writer.write("a\ud800b.")
    assert read_all(terminal.master, b".") == b"a?b."
