"""The real command as a process: forked from the warm server, or executed as a shell would.

Either has a file or a pseudo-terminal of its own for what it shows. A forked one also tells what
its run does, through the wire of `Forked`, as its files are written. Knows nothing of what must
hold.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.lab import Lab
from tests.campaign.processes import Forked


class Executed:
    """`python -m tui_lab ARGUMENTS` in the lab at `root`; its output goes into `output`."""

    def __init__(self, root: Path, arguments: list[str], output: Path) -> None:
        with open(output, "wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tui_lab", *arguments],
                env=os.environ | _environment(root),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.started = time.monotonic()

    def outlast(self, until: float) -> bool:
        """Wait up to a moment; whether it has ended by then."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, until - time.monotonic()))
        return self.process.returncode is not None

    def code(self) -> int:
        return self.process.wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class PseudoTerminal:
    """A terminal that reads all that is drawn on it. `path` is what a process opens."""

    def __init__(self) -> None:
        self._master, self._slave = pty.openpty()
        termios.tcsetwinsize(self._slave, (36, 120))
        self.path = os.ttyname(self._slave)
        self.written = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):
            while data := os.read(self._master, 1 << 16):
                self.written += data

    def wrong(self) -> list[str]:
        """In what it is not as a shell wants it back, now that the process is gone."""
        wrong = []
        flags = termios.tcgetattr(self._slave)[3]
        if not (flags & termios.ECHO and flags & termios.ICANON):
            wrong.append("echo and line editing are off")
        os.close(self._slave)
        self._reader.join(5.0)  # Linux: reading ends once nobody has the other side open
        for on, off, what in (
            (b"\x1b[?1049h", b"\x1b[?1049l", "the alternate screen is left on"),
            (b"\x1b[?1003h", b"\x1b[?1003l", "mouse reports are left on"),
            (b"\x1b[?25l", b"\x1b[?25h", "the cursor is left hidden"),
        ):
            if self.written.rfind(on) > self.written.rfind(off):
                wrong.append(what)
        os.close(self._master)
        return wrong


def command(
    say: Callable[..., None], root: Path, arguments: list[str], output: str, moment: float = 0.0
) -> None:
    """`tui-lab ARGUMENTS` in the lab at `root`, begun at `moment`.

    `output`: a file, or a terminal that becomes this process's own. Says that it is `starting`, and
    then what the run's files are told: phases, begun, step, paused.
    """
    from engine import peaks
    from tui_lab.__main__ import main

    os.environ.update(_environment(root))
    peaks.measured_peak = lambda *asked: 1e12
    _tell(say)
    if output.startswith("/dev/"):
        os.setsid()  # and the first terminal that is opened is the session's
    descriptor = os.open(output, os.O_RDWR | os.O_CREAT, 0o600)
    for number in (0, 1, 2):
        os.dup2(descriptor, number)
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)  # the fork server had closed it
    sys.argv = ["tui-lab", *arguments]
    try:
        say("starting")
        time.sleep(max(0.0, moment - time.monotonic()))
        main()
    except KeyboardInterrupt:  # before the command had its handlers: as Python itself ends then
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


def _environment(root: Path) -> dict[str, str]:
    own = {"DIR": root, "CACHE_DIR": root / "cache", "CONFIG_DIR": root / "settings"}
    inductor = {"TORCHINDUCTOR_CACHE_DIR": str(root / "inductor")}  # every compilation is a first
    return {f"TUI_LAB_{name}": str(path) for name, path in own.items()} | inductor


def _tell(say: Callable[..., None]) -> None:
    from engine import events
    from engine.run_writer import RunWriter

    write = RunWriter.__call__

    def told(self: RunWriter, event: events.Event) -> None:
        match event:
            case events.Phase(phase=phase, step=step):
                say(phase, step)
            case events.StepDone(step=step):
                say("step", step)
            case events.RunStarted(step=step):
                say("begun", step)
            case events.Paused(step=step):
                say("paused", step)
        write(self, event)

    RunWriter.__call__ = told  # type: ignore[method-assign]


def make_preset(lab: Lab, name: str, values: dict[str, Any]) -> None:
    """A preset of the lab's own."""
    from engine.config import Config, to_toml

    (lab.configs / f"{name}.toml").write_text(to_toml(Config().with_values(values)))


def start(
    root: Path, arguments: list[str], output: Path, terminal: PseudoTerminal | None = None
) -> Forked:
    return Forked(command, root, arguments, terminal.path if terminal else str(output))
