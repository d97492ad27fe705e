"""Opening the app in a terminal, and what is left to do when it closes.

While the app draws, file descriptors 1 and 2 belong to a log file: what libraries print from C
would be drawn over the screen. The app itself writes to its own copy of the terminal.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.errors import InputError
from engine.lab import Lab
from engine.text import visible
from tui_lab.settings import Settings, config_dir


def launch(start: str | None, lab: Path | None = None) -> None:
    """Open the app; `start` names a preset to train at once. InputError without a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InputError(
            "the app needs a terminal",
            "without one: tui-lab train --config micro (or tui-lab --help)",
        )
    place = Lab.find(lab)
    if start is not None:
        from engine.config import load_preset

        load_preset(place, start)  # an unknown preset is refused here, before the screen changes
    # Milliseconds, read by Textual when it is imported: ample for the rest of an arrow key, which
    # travels in one packet. Whoever has a link that splits them sets it.
    os.environ.setdefault("ESCDELAY", "30")
    from tui_lab.app import LabApp
    from tui_lab.driver import quick_driver

    app = LabApp(place, Settings.load(), start=start, driver=quick_driver())
    with _terminal_to_ourselves():
        app.run()
    code = app.return_code or 0
    if (crash := app._exception) is not None:
        # Textual has written the traceback to the log that stood in for the terminal.
        sys.stderr.write(visible(f"error: the screen failed: {type(crash).__name__}: {crash}\n"))
        sys.stderr.write(f"hint:  what happened is in {log_path()}\n")
    if app.trainer.active:
        # Left on purpose, by a closed terminal, or by a crash of the screen: the run goes on.
        from tui_lab.afterwards import follow

        code = follow(app.trainer, app.run_state) or code
    if app.exit_signal:
        code = 128 + app.exit_signal
    if code:
        sys.exit(code)


@contextmanager
def _terminal_to_ourselves() -> Iterator[None]:
    """Give the app a private descriptor of the terminal, and everybody else a log file."""
    if sys.platform == "win32":
        yield
        return
    sys.stdout.flush()
    sys.stderr.flush()
    saved = {number: os.dup(number) for number in (1, 2)}
    before = sys.__stdout__, sys.__stderr__
    log = _open_log()
    # Textual's driver writes to `sys.__stderr__`, and asks `sys.__stdout__` for the size.
    terminal = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    sys.__stdout__ = sys.__stderr__ = terminal  # type: ignore[misc]
    try:
        for number in saved:
            os.dup2(log, number)
        yield
    finally:
        with suppress(OSError):
            terminal.close()
        sys.__stdout__, sys.__stderr__ = before  # type: ignore[misc]
        for number, copy in saved.items():
            if _is_lost(copy):
                os.dup2(os.open(os.devnull, os.O_WRONLY), copy)
            os.dup2(copy, number)
            os.close(copy)
        os.close(log)


def _is_lost(descriptor: int) -> bool:
    """Whether this was a terminal that has been closed: each write to it would be an error."""
    return stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor)


def log_path() -> Path:
    """Where everything goes that is written to the terminal's descriptors while the app draws."""
    return config_dir() / "app.log"


def _open_log() -> int:
    """A descriptor of the app's log; of the null device where no file can be made."""
    path = log_path()
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, 0o600)
    return os.open(os.devnull, os.O_WRONLY)
