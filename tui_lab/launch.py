"""Opening the app in a terminal, and what is left to do when it closes.

While the app draws, file descriptors 1 and 2 belong to a log file: what libraries print from C
would be drawn over the screen. The app itself writes to its own copy of the terminal.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import InputError, in_words
from engine.lab import Lab
from engine.text import visible
from tui_lab.settings import Settings, config_dir
from tui_lab.stderr import VisibleStderr

if TYPE_CHECKING:
    from tui_lab.app import LabApp

GRACE_SECONDS = 1.0
"""That the training thread has for ending, once its run has said its last word."""


def launch(start: str | None, lab: Path | None = None, *, attach: Path | None = None) -> None:
    """Open the app; `start` names a preset to train at once, `attach` is the folder of a run to
    look at. InputError without a terminal.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InputError(
            "the app needs a terminal",
            "without one: tui-lab train --config micro (or tui-lab --help)",
        )
    place = Lab.find(lab)
    if start is not None:
        from engine.config import load_preset

        load_preset(place, start)  # an unknown preset is refused here, before the screen changes
    settings = Settings.load()
    os.environ.setdefault("ESCDELAY", _escape_delay(settings))
    from tui_lab.app import LabApp

    app = LabApp(place, settings, start=start, attach=attach, driver=_driver())
    if code := run_app(app):
        sys.exit(code)


def _escape_delay(settings: Settings) -> str:
    """Milliseconds in which the rest of an arrow key comes, read by Textual when it is imported:
    here it is there already, from afar it travels in one packet, on a slow link perhaps in two."""
    from tui_lab.link import choice

    if choice(settings.slow_link) == "always":
        return "100"
    return "30" if "SSH_CONNECTION" in os.environ else "10"


def run_app(app: LabApp) -> int:
    """Show the app until it is left, and then the run in lines while that goes on; the process's
    exit code. Ends the process by itself if a thread cannot be waited for."""
    with app.watch_signals():
        crash = _draw(app)
        _keep_cost(app)
        app.detach()
        code = 1 if crash else app.return_code or 0
        if crash:
            sys.stderr.write(visible(f"error: the screen failed: {in_words(crash)}\n"))
            sys.stderr.write(visible(f"hint:  what happened is in {log_path()}\n"))
            app.save_if_paused()
        if app.goes_on:
            # Left on purpose, by a closed terminal, or by a crash of the screen.
            from tui_lab.afterwards import follow

            code = follow(app.trainer, app.run_state, lambda: app.exit_signal) or code
        if app.exit_signal:
            code = 128 + app.exit_signal
        is_stuck = not app.trainer.wait(GRACE_SECONDS)
        sys.stdout.flush()
        sys.stderr.flush()
        app.left.set()
        if is_stuck:
            # Its run has said its last word, or never began: nothing is lost with the thread, which
            # may compile or read for minutes, and which an orderly end would have to outlive.
            os._exit(code)
    return code


def _keep_cost(app: LabApp) -> None:
    """What the screen has cost until its end, for `tui-lab doctor`."""
    if app.bytes_drawn:
        from tui_lab import screen_cost

        screen_cost.keep(app.screen_cost())


def _driver() -> Any:
    """The driver to give to the app; None where Textual is to choose another than its own for
    POSIX terminals (Windows, or the one that TEXTUAL_DRIVER names)."""
    if sys.platform == "win32" or os.environ.get("TEXTUAL_DRIVER"):
        return None
    from tui_lab.driver import LabDriver

    return LabDriver


def _draw(app: LabApp) -> BaseException | None:
    """Run the app in the terminal; what it failed with. No failure of a screen ends the training.

    The traceback is written to the log that stands in for the terminal meanwhile.
    """
    streams = sys.stdout, sys.stderr
    with _terminal_to_ourselves():
        try:
            app.run()
        except BaseException as error:  # even SystemExit, from a widget, would end the process
            # Textual was cut off, and still has the streams that it takes while it draws.
            sys.stdout, sys.stderr = streams
            VisibleStderr().write("".join(traceback.format_exception(error)))
            VisibleStderr().flush()
            return error
        finally:
            app.give_terminal_back()
    return app._exception


@contextmanager
def _terminal_to_ourselves() -> Iterator[None]:
    """Give the app a private descriptor of the terminal, and everybody else a log file."""
    if sys.platform == "win32":
        yield
        return
    from tui_lab.terminal_writer import is_lost

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
            if not is_lost(copy):  # else the log stays in its place
                os.dup2(copy, number)
            os.close(copy)
        os.close(log)


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
