"""A headless run outlives its terminal and its readers, and ends when it is told to."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.lab import Lab
from engine.status import judged, read_status
from tests.tui_lab.cli.processes import TINY, command, environment
from tests.tui_lab.terminals import Terminal

ENDLESS = ("--max-steps", "1000000", "--name", "r", "--set", "sample.every=0")
ROOT = Path(__file__).parents[2]


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def step_of(lab: Lab) -> int:
    return read_status(lab.checkpoints / "r").step


def goes_on(lab: Lab) -> bool:
    """Whether the run takes steps, after now."""
    before = step_of(lab)
    until(lambda: step_of(lab) > before + 20)
    return judged(read_status(lab.checkpoints / "r")) == "running"


def main_thread_seconds(pid: int) -> float:
    """What the thread that draws has used."""
    fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def terminal(small_lab: Lab) -> Iterator[Terminal]:
    terminal = Terminal(*command(small_lab.root, "train", *TINY, *ENDLESS)[1:], **environment())
    try:
        yield terminal
    finally:
        terminal.close()


@pytest.mark.parametrize("told", [True, False], ids=["SIGHUP", "dead terminal"])
def test_a_closed_terminal_ends_nothing(small_lab: Lab, told: bool) -> None:
    arguments = command(small_lab.root, "train", *TINY, *ENDLESS)[1:]
    terminal = Terminal(*arguments, controlling=told, **environment())
    try:
        terminal.until(lambda: step_of(small_lab) > 0, 60)
        terminal.hang_up()
        assert goes_on(small_lab)
        time.sleep(0.5)
        assert os.path.realpath(f"/proc/{terminal.pid}/fd/1") == os.devnull
        before = main_thread_seconds(terminal.pid)
        time.sleep(1.0)
        assert main_thread_seconds(terminal.pid) - before <= 0.03
        terminal.signal(signal.SIGTERM)
        assert terminal.ends(20) == 143
        status = read_status(small_lab.checkpoints / "r")
        assert (status.state, status.reason) == ("stopped", "SIGTERM")
        log = (small_lab.checkpoints / "r" / "log.txt").read_text()
        # A final one, or the rolling one where the signal came in its step.
        assert re.search(r"step ([\d,]+)  saved \((.*\n)+?.*step \1  SIGTERM after", log), log
    finally:
        terminal.close()


def test_a_reader_that_goes_away_ends_nothing(small_lab: Lab) -> None:
    """`tui-lab train | head -1` trains on, and says so once."""
    process = subprocess.Popen(
        command(small_lab.root, "train", *TINY, *ENDLESS, "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.stdout.close()
        until(lambda: step_of(small_lab) > 0)
        assert goes_on(small_lab)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        (line,) = process.stderr.read().splitlines()
        assert "training goes on" in line and "Broken pipe" in line
    finally:
        process.kill()
    assert read_status(small_lab.checkpoints / "r").reason == "SIGINT"


def test_a_terminal_that_takes_nothing_delays_no_stop(terminal: Terminal, small_lab: Lab) -> None:
    """Nobody reads: its buffer fills, and whoever writes to it waits."""
    terminal.until(lambda: step_of(small_lab) > 0, 60)
    # The pseudo-terminal's own output is stopped, as ctrl-s does: the next write waits for ever.
    terminal.type(b"\x13")
    assert goes_on(small_lab)
    time.sleep(0.5)
    terminal.signal(signal.SIGTERM)
    assert terminal.ends(15) == 143
    assert read_status(small_lab.checkpoints / "r").reason == "SIGTERM"


# A run that prepares for ever, one whose thread is stuck after its last word, and one that is stuck
# in a step: what takes minutes in life, made in a moment.
WORK = """
import sys, time
from engine import events
from tui_lab.headless import JsonListener, run_headless

def started():
    return events.RunStarted(
        run="r", path="/nowhere", config="", step=0, tokens=0, max_steps=9, steps_per_epoch=1.0,
        tokens_per_step=1, n_parameters=1, flops_per_token=1.0, context_length=1, vocab_size=1,
        train_tokens=1, val_tokens=1, bytes_per_token=1.0, device="cpu", device_name="a CPU",
        precision="float32", threads=1, peak_flops=0.0, peak_source="", pid=1, host="h")

def finished(reason):
    return events.Finished(run="r", step=1, tokens=1, reason=reason, seconds=1.0)

def prepares(emit, inbox):
    emit(events.Preparing(what="reading a large corpus"))
    time.sleep(60)

def is_stuck_after_its_last_word(emit, inbox):
    emit(started())
    while not inbox.urgent():
        time.sleep(0.01)
    emit(finished(inbox.urgent().reason))
    time.sleep(60)

def is_stuck_in_a_step(emit, inbox):
    emit(started())
    time.sleep(60)

def closes_slowly(emit, inbox):
    emit(started())
    emit(finished("completed"))
    time.sleep(2.5)
    return finished("completed")

sys.exit(run_headless(globals()[sys.argv[1]], JsonListener()))
"""


class Child:
    def __init__(self, work: str, word: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORK, work],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self.process.stdout
        self.first = self.process.stdout.readline()
        assert word in self.first

    def ends(self, *signals: int, within: float) -> int:
        began = time.monotonic()
        for number in signals:
            self.process.send_signal(number)
            time.sleep(0.3)
        try:
            code = self.process.wait(30)
            assert time.monotonic() - began < within
            return code
        finally:
            self.process.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_it_prepares_ends_it_soon(number: int, code: int) -> None:
    assert Child("prepares", "preparing").ends(number, within=3) == code


def test_the_last_word_is_the_end_although_the_thread_is_stuck() -> None:
    """The watchdog saved what there was beside a step that hangs; nobody waits for that step."""
    child = Child("is_stuck_after_its_last_word", "run_started")
    assert child.ends(signal.SIGTERM, within=4) == 143
    assert child.process.stdout and '"reason": "SIGTERM"' in child.process.stdout.read()


def test_a_second_interrupt_leaves_at_once() -> None:
    child = Child("is_stuck_in_a_step", "run_started")
    assert child.ends(signal.SIGINT, signal.SIGINT, within=2.5) == 130
    assert child.process.stderr and "without waiting" in child.process.stderr.read()


def test_a_second_termination_waits_for_the_save() -> None:
    """Schedulers repeat themselves."""
    child = Child("is_stuck_in_a_step", "run_started")
    child.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    child.process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        child.process.wait(3)
    child.process.kill()


def test_an_end_that_nobody_asked_for_waits_for_the_last_files() -> None:
    child = Child("closes_slowly", "run_started")
    began = time.monotonic()
    assert child.ends(within=30) == 0 and time.monotonic() - began > 2
