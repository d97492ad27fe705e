"""The app in a real terminal: first paint, noise, signals, and the terminal given back."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.tui_lab.terminals import ROOT, Terminal, shown
from tui_lab import afterwards
from tui_lab.link import SLOW_BYTES_PER_SECOND
from tui_lab.state import RunState
from tui_lab.trainer_thread import TrainerThread

# The app as `launch` opens it, with a session that trains nothing. The first word of the command
# line says what goes wrong with it.
PROGRAM = """
import ctypes, os, sys, time
from tests.tui_lab.fakes import FakeSession, config
import tui_lab.app

wrong = sys.argv[1] if len(sys.argv) > 1 else ""

class Session(FakeSession):
    def run_training(self, lab, told, *, emit, **keywords):
        if wrong == "endless preparation":
            time.sleep(60)
        ctypes.CDLL(None).puts(b"NOISE FROM C")
        ctypes.CDLL(None).fflush(None)
        os.write(2, b"MORE NOISE")
        said = super().run_training(lab, config(train__max_steps=100000), emit=emit, **keywords)
        if wrong == "endless end":
            time.sleep(60)
        return said

made = tui_lab.app.LabApp.__init__
def with_session(self, *arguments, **keywords):
    made(self, *arguments, session=Session(), **keywords)
tui_lab.app.LabApp.__init__ = with_session
from tui_lab.launch import launch
App = tui_lab.app.LabApp

def fail(self, *arguments):
    raise {"failing tick": ValueError, "leaving tick": SystemExit}[wrong](f"{wrong} [b]")

def block(self, *arguments):
    time.sleep(60)

def when_it_trains(method, then):
    def instead(self, *arguments):
        trains = self.run_state is not None and self.run_state.step > 3
        return (then if trains else method)(self, *arguments)
    return instead

if wrong in ("failing tick", "leaving tick"):
    App._tick = when_it_trains(App._tick, fail)
if wrong == "failing timer":
    App._drain = when_it_trains(App._drain, lambda self: self.nothing_of_this_name())
if wrong == "failing widgets":
    from tui_lab.widgets.topbar import TopBar
    TopBar.ready_lines = when_it_trains(TopBar.ready_lines, lambda self: 1 / 0)
    TopBar.run_state = property(lambda self: self.app.run_state)
    App._tick = when_it_trains(App._tick, lambda self: [w.refresh() for w in self.query("*")])
if wrong == "blocked loop":
    App._tick = when_it_trains(App._tick, block)
if wrong == "telling drops":
    from tui_lab import terminal_writer
    from tui_lab.terminal_writer import TerminalWriter
    terminal_writer.LIMIT = 8192  # an app at rest draws little: not to have to wait for long
    put = TerminalWriter.write
    def write(self, text, **keywords):
        taken = put(self, text, **keywords)
        if not taken:
            os.write(2, b"dropped ")
        return taken
    TerminalWriter.write = write
launch("micro" if "train" in sys.argv else None)
"""


@pytest.fixture
def terminal(tmp_path: Path):
    opened: list[Terminal] = []

    def start(*arguments: str, **options) -> Terminal:
        environment = {
            "TUI_LAB_CONFIG_DIR": str(tmp_path / "config"),
            "TUI_LAB_DIR": str(tmp_path),
            "TERM": "xterm-256color",
        }
        opened.append(Terminal(*arguments, **options, **environment))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_without_a_terminal_there_is_one_clear_line(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "tui_lab"],
        cwd=ROOT,
        env=os.environ | {"TUI_LAB_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert "needs a terminal" in done.stderr and "tui-lab train" in done.stderr


def test_the_first_paint_imports_nothing_heavy(terminal):
    one = terminal(
        "-c",
        "import sys\n"
        "from textual.app import App\n"
        "from tui_lab.launch import launch\n"
        "try: launch(None)\n"
        "finally: print('HEAVY', sorted({'torch', 'numpy', 'plotext', 'typer'} & {*sys.modules}))",
    )
    one.until(lambda: b"Train a GPT" in one.written)
    os.write(one.fd, b"q")
    one.until(lambda: b"HEAVY" in one.written and one.ended())
    assert b"HEAVY []" in one.written


def test_noise_goes_to_the_log_and_the_terminal_is_given_back(terminal, tmp_path: Path):
    one = terminal("-c", PROGRAM, "train")
    before = termios.tcgetattr(one.fd)
    one.until(lambda: b"micro-python-docs" in one.written and b"loss" in one.written)
    os.write(one.fd, b"\xff\xc3")  # no text in any language: a key of no meaning
    os.write(one.fd, b"q")
    one.until(lambda: b"A run is training" in one.written)
    os.write(one.fd, b"s")
    one.until(one.ended)
    assert one.code == 0
    assert b"NOISE" not in one.written
    log = (tmp_path / "config" / "app.log").read_text()
    assert "NOISE FROM C" in log and "MORE NOISE" in log
    assert b"\x1b[?1049l" in one.written  # the alternate screen is left
    assert termios.tcgetattr(one.fd)[3] == before[3]  # echo and line editing are back


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_and_saves(terminal, number: int, code: int):
    one = terminal("-c", PROGRAM, "train")
    one.until(lambda: b"micro-python-docs" in one.written)
    os.kill(one.pid, number)
    one.until(one.ended)
    assert one.code == code
    assert b"\x1b[?1049l" in one.written and b"Traceback" not in one.written


@pytest.mark.parametrize("controlling", [True, False], ids=["SIGHUP", "no signal"])
def test_a_closed_terminal_does_not_end_the_run(terminal, controlling: bool):
    one = terminal("-c", PROGRAM, "train", controlling=controlling)
    one.until(lambda: b"micro-python-docs" in one.written and b"loss" in one.written)
    one.hang_up()
    time.sleep(1.0)
    assert not one.ended()
    before = processor_seconds(one.pid)
    time.sleep(1.0)
    # The session that trains nothing takes little; an input thread spinning would take a core.
    assert processor_seconds(one.pid) - before < 0.5
    one.signal(signal.SIGHUP)  # once more, which ends a process that does not expect it
    time.sleep(0.2)
    one.signal(signal.SIGTERM)
    assert one.ends(10) == 143


@pytest.mark.parametrize("controlling", [True, False], ids=["SIGHUP", "no signal"])
def test_a_closed_terminal_ends_an_app_that_trains_nothing(terminal, controlling: bool):
    one = terminal("-c", PROGRAM, controlling=controlling)
    one.until(lambda: b"Train a GPT" in one.written)
    one.hang_up()
    assert one.ends(10) == 129


def test_a_paused_run_is_saved_and_stays_paused_when_its_terminal_closes(terminal, tmp_path):
    """It can be told to go on from elsewhere, and may wait for long: so it is saved first."""
    one = terminal("-c", PROGRAM, "train")
    one.until(lambda: b"micro-python-docs" in one.written and b"loss" in one.written)
    os.write(one.fd, b" ")
    one.until(lambda: b"paused" in one.written)
    one.hang_up()
    log = tmp_path / "config" / "app.log"
    one.until(lambda: "saved p" in log.read_text())
    time.sleep(0.3)
    assert not one.ended() and "Resume" not in log.read_text()
    os.kill(one.pid, signal.SIGTERM)
    one.until(one.ended)
    assert one.code == 143


def test_a_hang_up_that_was_sent_leaves_the_terminal_restored(terminal):
    one = terminal("-c", PROGRAM, "train")
    one.until(lambda: b"loss" in one.written)
    one.signal(signal.SIGHUP)
    one.until(lambda: b"goes on without the screen" in one.written)
    assert one.is_restored() and b"\x1b[?1049l" in one.written


def processor_seconds(pid: int) -> float:
    import psutil

    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


@pytest.mark.parametrize(
    ("wrong", "seconds"),
    [("blocked loop", 6.0), ("endless preparation", 3.0), ("endless end", 4.0)],
)
def test_a_signal_is_answered_whatever_hangs(terminal, wrong: str, seconds: float):
    """The seconds include what the screen is given for closing, and the thread for ending."""
    one = terminal("-c", PROGRAM, wrong, "train")
    one.until(lambda: b"micro" in one.written)
    one.read_for(1.0)
    one.signal(signal.SIGTERM)
    started = time.monotonic()
    one.until(one.ended)
    assert one.code == 143 and time.monotonic() - started < seconds
    assert one.is_restored() and b"\x1b[?1049l" in one.written


def test_a_second_signal_leaves_at_once(terminal):
    one = terminal("-c", PROGRAM, "blocked loop", "train")
    one.until(lambda: b"micro" in one.written)
    one.read_for(1.0)
    started = time.monotonic()
    one.signal(signal.SIGINT)
    time.sleep(0.1)
    one.signal(signal.SIGINT)
    one.until(one.ended)
    assert one.code == 130 and time.monotonic() - started < 1.0
    assert one.is_restored() and b"\x1b[?1049l" in one.written


def test_a_signal_is_answered_although_nobody_reads_the_terminal(terminal):
    one = terminal("-c", PROGRAM, "train")
    one.until(lambda: b"loss" in one.written)
    for number in range(40):  # more than any buffer holds, and nobody reads
        one.type(b"?\x1b" if number % 2 else b"2" if number % 4 else b"1")
        time.sleep(0.03)
    started = time.monotonic()
    one.signal(signal.SIGTERM)
    assert one.ends(10) == 143
    assert time.monotonic() - started < 5.0
    assert one.is_restored()
    one.read_for(0.5)
    assert one.written.endswith(b"\x1b[?1004l")  # the last of what restores the terminal


def test_what_was_not_drawn_is_made_good_by_a_repaint(terminal, tmp_path: Path):
    one = terminal("-c", PROGRAM, "telling drops")
    one.until(lambda: b"Train a GPT" in one.written)
    log = tmp_path / "config" / "app.log"
    for number in range(200):
        one.type(b"12"[number % 2 : number % 2 + 1])
        one.resize(110 + number % 11, 30 + number % 7)
        time.sleep(0.1)
        if "dropped" in log.read_text():
            break
    one.resize(120, 36)
    one.type(b"2")
    time.sleep(0.5)
    one.until(lambda: "validation" in "".join(shown(one.written)))  # the run has been read
    one.read_for(1.5)
    assert "dropped" in log.read_text(), "the terminal took everything: nothing was tried"
    drawn = shown(one.written)
    before = len(one.written)
    one.signal(signal.SIGCONT)  # draws everything anew
    one.read_for(1.5)
    anew = shown(one.written[before:])
    assert drawn[1:] == anew[1:]  # the first line tells what the screen costs
    assert drawn[0].split("UI")[0].split() == anew[0].split("UI")[0].split()
    assert "hello-python" in "".join(drawn)


@pytest.mark.campaign  # what waits for a thin link takes its time: half a minute and more
def test_a_slow_terminal_is_found_out_and_drawn_for(terminal):
    """Nobody said so: 4 kB/s, and somebody who goes from screen to screen."""
    one = terminal("-c", PROGRAM, "train", TUI_LAB_SLOW_LINK="auto")
    one.until(lambda: b"micro-python-docs" in one.written and b"loss" in one.written)
    end = time.monotonic() + 90
    keys = itertools.cycle(b"2345")
    while b"The terminal is slow" not in one.written:
        assert time.monotonic() < end
        one.type(bytes([next(keys)]))
        one.read_slowly(4000, 0.5)
    one.read_for(2.0)  # what waited comes, and the notification
    one.type(b"\x1b")  # out of the console's prompt
    one.read_for(1.0)
    one.type(b"1")
    one.read_for(3.0)
    before = len(one.written)
    one.read_for(4.0)
    assert len(one.written) - before < 4 * SLOW_BYTES_PER_SECOND * 2
    assert "loss" in "\n".join(shown(one.written))


def test_a_stop_and_its_end_leave_the_terminal_right(terminal):
    one = terminal("-c", PROGRAM, "train")
    one.until(lambda: b"loss" in one.written)
    threads = threads_of(one.pid)
    for _ in range(3):
        one.signal(signal.SIGSTOP)
        time.sleep(0.1)
        one.signal(signal.SIGCONT)
        one.read_for(0.4)
    assert threads_of(one.pid) < threads + 3  # not a reader and a writer more each time
    before = len(one.written)
    one.signal(signal.SIGTSTP)
    one.until(lambda: b"\x1b[?1049l" in one.written[before:])
    one.until(lambda: state_of(one.pid) == "T")
    assert one.is_restored()
    one.signal(signal.SIGCONT)
    one.until(lambda: b"\x1b[?1049h" in one.written[before:])
    one.until(lambda: "loss" in "".join(shown(one.written[before:])))
    one.type(b"q")
    one.until(lambda: b"A run is training" in one.written)
    one.type(b"s")
    one.until(one.ended)
    assert one.code == 0 and one.is_restored()


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize(
    "wrong", ["failing tick", "failing timer", "failing widgets", "leaving tick"]
)
def test_a_failure_of_the_screen_does_not_end_the_run(terminal, tmp_path: Path, wrong: str):
    one = terminal("-c", PROGRAM, wrong, "train")
    one.until(lambda: b"goes on without the screen" in one.written)
    one.until(lambda: b"loss 2" in one.written.rpartition(b"goes on")[2])
    assert b"error: the screen failed" in one.written and b"app.log" in one.written
    assert one.is_restored()
    assert "Traceback" in (tmp_path / "config" / "app.log").read_text()
    one.type(b"\x03")
    one.until(one.ended)
    assert one.code == 130


def test_keep_training_goes_on_in_lines_and_ctrl_c_saves(terminal):
    one = terminal("-c", PROGRAM, "train")
    one.until(lambda: b"micro-python-docs" in one.written and b"loss" in one.written)
    os.write(one.fd, b"q")
    one.until(lambda: b"A run is training" in one.written)
    os.write(one.fd, b"k")
    one.until(lambda: b"goes on without the screen" in one.written)
    one.until(lambda: b"loss 2" in one.written.rpartition(b"goes on")[2])
    os.write(one.fd, b"\x03")
    one.until(one.ended)
    assert one.code == 130
    assert b"SIGINT at step" in one.written


def test_a_run_that_goes_on_in_lines_outlives_its_terminal_too(terminal):
    one = terminal("-c", PROGRAM, "train")
    one.until(lambda: b"micro-python-docs" in one.written and b"loss" in one.written)
    one.type(b"q")
    one.until(lambda: b"A run is training" in one.written)
    one.type(b"k")
    one.until(lambda: b"goes on without the screen" in one.written)
    one.hang_up()
    time.sleep(6.0)  # a line is written every five seconds
    assert not one.ended()
    one.signal(signal.SIGTERM)
    assert one.ends(10) == 143


def test_following_a_run_that_fails_ends_in_one(capsys):
    from tests.tui_lab.fakes import FakeSession, config

    trainer = TrainerThread(FakeSession(fail_at=3))
    told = config()
    trainer.start("run_training", None, told)
    assert afterwards.follow(trainer, RunState(told, "micro")) == 1
    assert "error: the disk is full (free some space, then resume)" in capsys.readouterr().out
