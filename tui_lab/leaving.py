"""The ways out of the app: the key, the signals, a closed terminal. None of them loses a run.

A mixin of `LabApp`, which has the trainer, the dialogs and the timer.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tui_lab.app import LabApp

KEEP_TRAINING = 3
"""The app's result when it was left while a run trains: the caller goes on without a screen."""


class Leaving:
    """`exit_signal`: the signal that ended the app, 0 for none."""

    exit_signal = 0
    leave_when_done = False

    def watch_signals(self: LabApp) -> None:
        """Take the signals that would otherwise kill the process in the middle of a step."""
        loop = asyncio.get_running_loop()
        with suppress(NotImplementedError, RuntimeError, ValueError):  # Windows, or no main thread
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._terminated, number)
            loop.add_signal_handler(signal.SIGHUP, self._hung_up)

    def _terminated(self: LabApp, number: int) -> None:
        """Stop and save, then leave; at once when nothing trains."""
        self.exit_signal = int(number)
        if self.trainer.active:
            self.stop_run()
            self.leave_when_done = True
        else:
            self.exit(0)

    def _hung_up(self: LabApp) -> None:
        """The terminal is gone: training goes on without it. A paused run is saved and ended
        instead, since nobody could ever tell it to go on.

        Textual's input thread would spin on the dead terminal, and its exit would write to it.
        """
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        if (file := getattr(self._driver, "_file", None)) is not None:
            os.dup2(null, file.fileno())
        os.close(null)
        if self.trainer.paused:
            from engine.control import Stop

            self.trainer.put(Stop(save=True, reason="SIGHUP"))
        self.exit_signal = 0 if self.trainer.active else int(signal.SIGHUP)
        self.exit(KEEP_TRAINING)

    def action_quit_lab(self: LabApp) -> None:
        self.run_worker(self._quit(), exclusive=True, group="quit")

    async def _quit(self: LabApp) -> None:
        if not self.trainer.active:
            self.exit(0)
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
            if self.trainer.paused or (self.run_state and self.run_state.status == "paused"):
                from engine.control import Resume

                self.trainer.put(Resume())
            self.exit(KEEP_TRAINING)

    def stop_run(self: LabApp) -> None:
        """Ask the run to stop and save; the app stays alive and shows it end."""
        from engine.control import Stop

        self.trainer.put(Stop(save=True))
        if self.run_state is not None:
            self.run_state.stopping = True
            self.run_state.ask("stopping")
