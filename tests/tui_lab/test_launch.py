"""The app in a real terminal: first paint, noise, signals, and the terminal given back."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tui_lab import afterwards
from tui_lab.state import RunState
from tui_lab.trainer_thread import TrainerThread

ROOT = Path(__file__).parents[2]

# The app as `launch` opens it, with a session that trains nothing.
PROGRAM = """
import ctypes, os, sys
from tests.tui_lab.fakes import FakeSession, config
import tui_lab.app

class Session(FakeSession):
    def run_training(self, lab, told, **keywords):
        ctypes.CDLL(None).puts(b"NOISE FROM C")
        ctypes.CDLL(None).fflush(None)
        os.write(2, b"MORE NOISE")
        return super().run_training(lab, config(train__max_steps=100000), **keywords)

made = tui_lab.app.LabApp.__init__
def with_session(self, *arguments, **keywords):
    made(self, *arguments, session=Session(), **keywords)
tui_lab.app.LabApp.__init__ = with_session
from tui_lab.launch import launch
launch("micro" if "train" in sys.argv else None)
"""


class Terminal:
    """A process in a pseudo-terminal of 120×36; `screen` is all that it has written."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.written = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.environ.update(environment)
            os.execv(sys.executable, [sys.executable, *arguments])
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 36, 120, 0, 0))
        self.code: int | None = None

    def read(self, seconds: float = 0.05) -> None:
        ready, _, _ = select.select([self.fd], [], [], seconds)
        if ready:
            try:
                self.written += os.read(self.fd, 1 << 16)
            except OSError:  # Linux: the other side is closed
                time.sleep(0.01)

    def until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.written[-2000:].decode(errors="replace")
            self.read()

    def ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def hang_up(self) -> None:
        """Close the terminal under the process."""
        os.close(self.fd)
        self.fd = os.open(os.devnull, os.O_RDWR)

    def close(self) -> None:
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def terminal(tmp_path: Path):
    opened: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        environment = {
            "TUI_LAB_CONFIG_DIR": str(tmp_path / "config"),
            "TUI_LAB_DIR": str(tmp_path),
            "TERM": "xterm-256color",
        }
        opened.append(Terminal(*arguments, **environment))
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
    os.write(one.fd, b"q")
    one.until(lambda: b"A run is training" in one.written)
    os.write(one.fd, b"s")
    one.until(one.ended)
    one.read()
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
    one.read()
    assert one.code == code
    assert b"\x1b[?1049l" in one.written and b"Traceback" not in one.written


def test_a_closed_terminal_does_not_end_the_run(terminal):
    one = terminal("-c", PROGRAM, "train")
    one.until(lambda: b"micro-python-docs" in one.written and b"loss" in one.written)
    one.hang_up()
    time.sleep(1.0)
    assert not one.ended()
    before = processor_seconds(one.pid)
    time.sleep(1.0)
    # The session that trains nothing takes little; an input thread spinning would take a core.
    assert processor_seconds(one.pid) - before < 0.5
    os.kill(one.pid, signal.SIGTERM)
    one.until(one.ended)
    assert one.code == 143


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


def processor_seconds(pid: int) -> float:
    import psutil

    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


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
    one.read()
    assert one.code == 130
    assert b"SIGINT at step" in one.written


def test_following_a_run_that_fails_ends_in_one(capsys):
    from tests.tui_lab.fakes import FakeSession, config

    trainer = TrainerThread(FakeSession(fail_at=3))
    told = config()
    trainer.start("run_training", None, told)
    assert afterwards.follow(trainer, RunState(told, "micro")) == 1
    assert "error: the disk is full (free some space, then resume)" in capsys.readouterr().out
