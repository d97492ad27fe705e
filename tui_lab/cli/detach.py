"""`train --detach`: the run in a process of its own, that no terminal can end.

The parent starts this very command again in a new session, and waits until the run has started or
was refused. The child tells it through a pipe, one JSON object a line, and forgets it then: what is
said afterwards is in the run's files, and what its libraries print in `output.txt` among them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from engine import events
from engine.errors import EngineError, InputError
from engine.plain_file import open_to_write
from engine.text import to_json
from tui_lab import format as fmt
from tui_lab.cli.common import note, say, say_json

OUTPUT_FILE = "output.txt"
REPORT = "TUI_LAB_REPORT"
"""The environment variable that names the pipe's descriptor to the child."""


# The parent -------------------------------------------------------------------------------------


def start(arguments: list[str], *, as_json: bool = False) -> None:
    """Start `tui-lab` with `arguments` (those of a `train`) in the background; say how to come
    back once its run has started.

    Raises EngineError, with the child's exit code, when the run was refused or ended before that.
    """
    if sys.platform == "win32":
        raise InputError("--detach needs a POSIX system", "leave it out, and keep the window open")
    read_end, write_end = os.pipe()
    with tempfile.TemporaryFile() as printed:
        child = subprocess.Popen(
            [*_this_program(), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=printed,
            env=os.environ | {REPORT: str(write_end)},
            pass_fds=[write_end],
            start_new_session=True,
        )
        os.close(write_end)
        with os.fdopen(read_end, "rb") as report:
            try:
                started = _follow(report)
            except KeyboardInterrupt:
                _end(child)
                raise
        if started is None:
            raise _ended_early(child, printed)
    _say_started(started, as_json)


def _this_program() -> list[str]:
    """How to start it again, with the same modules to be found: `-m` looks in the working
    directory too, which a command on the path must not."""
    by_module = getattr(sys.modules["__main__"], "__spec__", None) is not None
    return [sys.executable, *([] if by_module else ["-P"]), "-m", "tui_lab"]


def _follow(report: IO[bytes]) -> events.RunStarted | None:
    """Show the preparation until the run starts; None when the child says no more."""
    shown = ""
    for line in report:
        record = json.loads(line)
        if "refused" in record:
            error = EngineError(record["refused"], record["hint"])
            error.exit_code = record["exit_code"]
            raise error
        event = events.from_record(record)
        if isinstance(event, events.RunStarted):
            return event
        if isinstance(event, events.Preparing):
            tenth = f" {event.done * 10 // event.total * 10} %" if event.total else ""
            if shown != (shown := event.what + tenth):
                note(shown)
    return None


def _end(child: subprocess.Popen[bytes]) -> None:
    """Nothing has begun: the child leaves soon when told to."""
    child.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(5.0)


def _ended_early(child: subprocess.Popen[bytes], printed: IO[bytes]) -> EngineError:
    code = child.wait()
    printed.seek(0)
    lines = printed.read(100_000).decode(errors="replace").strip().splitlines()
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    error = EngineError(f"the run's process ended before it began ({how})", "\n".join(lines[-20:]))
    error.exit_code = 128 - code if code < 0 else code or 1
    return error


def _say_started(started: events.RunStarted, as_json: bool) -> None:
    if as_json:
        names = ("run", "path", "pid", "host", "step", "max_steps", "device_name")
        say_json({name: getattr(started, name) for name in names})
        return
    at = f"goes on from step {fmt.thousands(started.step)}" if started.resumed else "has started"
    say(f"run {started.run} {at} in the background: process {started.pid} on {started.host}")
    say(f"  watch and steer it   tui-lab attach {started.run}")
    say("  see what is alive    tui-lab runs --alive")
    say(f"  its log              {Path(started.path) / 'log.txt'}")


# The child --------------------------------------------------------------------------------------


def wanted() -> bool:
    """Whether this process was started by `start`."""
    return REPORT in os.environ


@contextmanager
def reporting() -> Iterator[Reporter]:
    """The child's listener. A refusal is told to the parent, and goes up."""
    reporter = Reporter(int(os.environ.pop(REPORT)))
    try:
        yield reporter
    except EngineError as error:
        told = {"refused": error.title, "hint": error.hint, "exit_code": error.exit_code}
        reporter.tell(told)
        raise
    finally:
        reporter.close()


class Reporter:
    """A listener that tells the parent how far the start is, and then nobody anything."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        os.set_inheritable(descriptor, False)  # what the run starts must not keep it open

    def tell(self, record: dict[str, Any]) -> None:
        """One line to the parent, which may be gone."""
        if self._descriptor >= 0:
            with suppress(OSError):
                os.write(self._descriptor, to_json(record).encode() + b"\n")

    def handle(self, event: events.Event) -> None:
        if isinstance(event, events.RunStarted):
            _print_into(Path(event.path) / OUTPUT_FILE)
            self.tell(events.to_record(event))
            self.close()
        elif isinstance(event, events.Preparing):
            self.tell(events.to_record(event))

    def pulse(self) -> None:
        pass

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _print_into(path: Path) -> None:
    """From here on, standard output and error of this process, and of C code in it, go there."""
    try:
        file = open_to_write(path, os.O_WRONLY | os.O_APPEND)
    except OSError:
        file = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(file, number)
    os.close(file)
