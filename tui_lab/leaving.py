"""The ways out of the app: the key, the signals, a closed terminal. None of them loses a run.

A mixin of `LabApp`, which has the trainer, the dialogs and the timer. Signals are answered in the
watching thread, so that a blocked event loop or a terminal that takes nothing delays no one.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from tui_lab.signals import SignalWatch

if TYPE_CHECKING:
    from tui_lab.app import LabApp

KEEP_TRAINING = 3
"""The app's result when it was left while a run trains: the caller goes on without a screen."""

LOOK_SECONDS = 0.05
SCREEN_SECONDS = 2.0
"""That the main thread has for closing the screen, once there is nothing left to wait for."""


class Leaving:
    """`exit_signal`: the signal that ends the process, 0 for none. `left`: set by whoever runs the
    app when nothing is left to do but to end."""

    exit_signal = 0
    leave_when_done = False

    def __init__(self: LabApp, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.left = threading.Event()
        self._hanging_up = threading.Lock()

    def watch_signals(self: LabApp) -> AbstractContextManager[Any]:
        """Take, while open, the signals that would otherwise kill the process within a step."""
        if sys.platform == "win32":
            return nullcontext()
        wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTSTP, signal.SIGCONT)
        return SignalWatch(wanted, self._answer)

    def _answer(self: LabApp, number: int) -> None:
        """In the watching thread. Nothing here waits for the event loop."""
        if number == signal.SIGHUP:
            self.give_terminal_back()  # a hang-up that somebody sent leaves a terminal behind
            self.hung_up()
        elif number == signal.SIGTSTP:
            self._in_loop(self._in_driver, "step_aside")
        elif number == signal.SIGCONT:
            self._in_loop(self._in_driver, "come_back")
        elif self.exit_signal:
            self._leave_at_once()  # asked twice
        else:
            self.exit_signal = int(number)
            if self.trains_here:
                self._stop_for(signal.Signals(number).name)
            threading.Thread(target=self._see_out, name="leaving", daemon=True).start()

    def _stop_for(self: LabApp, reason: str) -> None:
        from engine.control import Stop

        self.trainer.put(Stop(save=True, reason=reason, urgent=True), "signal")
        self._in_loop(self._show_stopping)

    def _see_out(self: LabApp) -> None:
        """Close the screen once nothing is left to be saved; leave without that if it hangs."""
        while self.trains_here and self.trainer.working and not self.left.wait(LOOK_SECONDS):
            pass
        self._in_loop(self.exit, 0)
        if not self.left.wait(SCREEN_SECONDS):
            self._leave_at_once()

    def _leave_at_once(self: LabApp) -> None:
        """End the process from here, with the terminal restored and without another save."""
        self.give_terminal_back()
        os._exit(128 + self.exit_signal)

    def give_terminal_back(self: LabApp) -> None:
        """Restore the terminal if the driver still has it. Callable from any thread."""
        self._in_driver("give_back")

    def hung_up(self: LabApp) -> None:
        """The terminal is gone: training goes on without it. A paused run is saved, and waits to
        be told to go on from elsewhere (`tui-lab attach`). Callable from any thread.

        The null device takes the terminal's place: reading, writing and asking would be errors.
        """
        if not self._hanging_up.acquire(blocking=False):
            return  # signal, reader and writer may all find out
        null = os.open(os.devnull, os.O_RDWR)
        file = getattr(self._driver, "_file", None)
        drawn_on = [file.fileno()] if file is not None and not file.closed else []
        for number in (0, 1, 2, *drawn_on):
            if stat.S_ISCHR(os.fstat(number).st_mode):  # 1 and 2 may be a log by now: it stays
                os.dup2(null, number)
        os.close(null)
        self.save_if_paused()
        if not self.trains_here and not self.exit_signal:
            self.exit_signal = int(signal.SIGHUP)
        self._in_loop(self.exit, KEEP_TRAINING)

    @property
    def goes_on(self: LabApp) -> bool:
        """Whether the run goes on without the screen: it has something to save, or was not asked
        to end."""
        asked = self.exit_signal or self.leave_when_done
        return self.trainer.working or not (self.trainer.over or asked)

    def save_if_paused(self: LabApp) -> None:
        """For a run that nobody can see any more: it may wait for long."""
        if self.trains_here and self._is_paused():
            from engine.control import SaveNow

            self.trainer.put(SaveNow(), "terminal")

    def _is_paused(self: LabApp) -> bool:
        run = self.run_state
        return self.trainer.paused or bool(run and run.status == "paused")

    def _in_driver(self: LabApp, method: str) -> None:
        """Call what only our own driver has; another one was asked for, or there is none yet."""
        if (wanted := getattr(self._driver, method, None)) is not None:
            wanted()

    def _in_loop(self: LabApp, function: Callable[..., Any], *arguments: Any) -> None:
        """Have the event loop call this when it can; nothing where it has ended."""
        if (loop := self._loop) is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(function, *arguments)

    def action_quit_lab(self: LabApp) -> None:
        self.run_worker(self._quit(), exclusive=True, group="quit")

    async def _quit(self: LabApp) -> None:
        if not self.trainer.active:
            self.exit(0)
            return
        if self.trainer.elsewhere:
            await self.leave_attached()
            return
        from tui_lab.screens.dialogs import Choice, Dialog

        answer = await self.ask(
            Dialog(
                "A run is training",
                "It can be saved and resumed later, or go on here without the screen.",
                choices=(
                    Choice("s", "Stop and save", "stop", "primary"),
                    Choice("k", "Keep training", "keep"),
                    Choice("c", "Cancel", ""),
                ),
                escape="",
            )
        )
        if answer == "stop":
            self.stop_run()
            self.leave_when_done = True
        elif answer == "keep":
            if self._is_paused():
                from engine.control import Resume

                self.trainer.put(Resume())
            self.exit(KEEP_TRAINING)

    def stop_run(self: LabApp) -> None:
        """Ask the run to stop and save; the app stays alive and shows it end."""
        from engine.control import Stop

        self.trainer.put(Stop(save=True))
        self._show_stopping()

    def _show_stopping(self: LabApp) -> None:
        if self.run_state is not None:
            self.run_state.stopping = True
            self.run_state.ask("stopping")
