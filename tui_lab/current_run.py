"""The run that the app shows: one that trains here, or one of another process; its events taken in.

A mixin of `LabApp`, which has the timer, the screens and the notifications. Imports the engine only
when there is a run.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError
from tui_lab.trainer_thread import TrainerThread

if TYPE_CHECKING:
    from engine.config import Config
    from engine.events import Event
    from tui_lab.app import LabApp
    from tui_lab.attached import AttachedRun
    from tui_lab.state import RunState

MOST_AT_ONCE = 4_000
"""Events taken in at one look, some 30 ms of work: a key must not wait for more."""


def _nobody(event: Event) -> None:
    """Listens to samples that no screen asked for."""


class CurrentRun:
    """`run_state` is what screens read, `trainer` what they tell commands to."""

    run_state: RunState | None
    trainer: TrainerThread | AttachedRun

    def own_no_run(self: LabApp, session: Any) -> None:
        """Nothing is shown yet; `session` stands in for `engine.session` in tests."""
        self.run_state = None
        self._own = self.trainer = TrainerThread(session)
        self._listeners: dict[str, Callable[[Event], None]] = {}

    def start_preset(self: LabApp, name: str) -> None:
        """Start a run of the preset called `name`, or say why not."""
        from engine.config import load_preset

        try:
            self.start_run(load_preset(self.lab, name), preset=name)
        except EngineError as error:
            self.show_error(error)

    def start_run(
        self: LabApp, config: Config, *, preset: str = "", name: str | None = None
    ) -> None:
        """Train `config` in the thread and show it. Raises EngineError while a run trains here."""
        self._own.start("run_training", self.lab, config, name=name, preset=preset)
        self._show_own(config, name or preset)

    def resume_run(self: LabApp, reference: str) -> None:
        """Go on with a run from a checkpoint; asks first when its configuration is not the one
        that the checkpoint was made with. Raises EngineError while a run trains here."""
        self._own.refuse_while_active()
        self.run_worker(self._resume(reference), group="resume", exclusive=True)

    async def _resume(self: LabApp, reference: str) -> None:
        from engine.resuming import describe, preview
        from tui_lab.screens.dialogs import Dialog

        lines: list[str] = []
        with suppress(EngineError):  # which the run itself will then say, where runs say it
            lines = describe(await asyncio.to_thread(preview, self.lab, reference))
        if lines and not await self.ask(
            Dialog(
                "Go on with another configuration?",
                "Since the checkpoint was made, config.toml has changed:\n\n" + "\n".join(lines),
                yes="Go on",
                no="Cancel",
            )
        ):
            return
        try:
            self._own.start("resume_training", self.lab, reference)
        except EngineError as error:
            self.show_error(error)
            return
        self._show_own(None, reference)

    def attach(self: LabApp, run_path: Path) -> None:
        """Show a run of another process, and steer it. Raises EngineError while one trains here."""
        from tui_lab.attached import AttachedRun
        from tui_lab.state import RunState

        if self._own.active:
            raise EngineError(
                "a run trains in this app",
                f"watch the other one in another terminal: tui-lab attach {run_path.name}",
            )
        self.detach()
        self.trainer = AttachedRun(run_path, self.settings.smoothing)
        self.run_state = RunState(None, run_path.name, self.settings.smoothing)
        self.run_state.elsewhere = True
        self.go("train")

    def detach(self: LabApp) -> None:
        """Let go of another process's run, which goes on as it is."""
        if self.trainer is not self._own:
            self.trainer.close()  # type: ignore[union-attr]
            self.trainer = self._own

    @property
    def trains_here(self) -> bool:
        """Whether a run of this process is under way."""
        return self._own.active

    @property
    def leaves_a_core(self: LabApp) -> bool:
        """Whether nothing trains on this machine, or only on a part of its processor."""
        run = self.run_state
        if run is None or run.started is None or run.status != "training":
            return True
        if run.started.device != "cpu":
            # What feeds the device waits for Python's lock whenever the screen holds it.
            return run.elsewhere
        from engine.machine import cores

        here = not run.elsewhere or run.started.host == socket.gethostname()
        return not here or run.started.threads < cores()

    async def leave_attached(self: LabApp) -> None:
        """Ask what becomes of another process's run when this app is left."""
        from tui_lab.screens.dialogs import Choice, Dialog

        run = self.run_state
        place = (
            f" in process {run.started.pid} on {run.started.host}" if run and run.started else ""
        )
        name = f"'{run.name}'" if run else "The run"
        answer = await self.ask(
            Dialog(
                "Leave this run?",
                f"{name} goes on{place}, whether it is watched or not.",
                choices=(
                    Choice("l", "Leave it", "leave", "primary"),
                    Choice("s", "Stop and save", "stop"),
                    Choice("c", "Cancel", ""),
                ),
                escape="",
            )
        )
        if answer == "leave":
            self.exit(0)
        elif answer == "stop":
            self.stop_run()
            self.leave_when_done = True

    def _show_own(self: LabApp, config: Config | None, name: str) -> None:
        from tui_lab.state import RunState

        self.detach()
        self.run_state = RunState(config, name, self.settings.smoothing)
        self.go("train")

    def subscribe(self, request: str, callback: Callable[[Event], None]) -> None:
        """Hand TokenGenerated and SampleDone events of a live sample to `callback`, in the app."""
        self._listeners[request] = callback

    def unsubscribe(self, request: str) -> None:
        self._listeners.pop(request, None)

    def take_events(self: LabApp) -> None:
        """Everything that the run said since the last look, as far as one look can take it."""
        trainer = self.trainer
        while trainer.errors:
            self.show_error(trainer.errors.popleft())
        if trainer.elsewhere and (told := trainer.take_history()) is not None:  # type: ignore
            told.version = self.run_state.version + 1 if self.run_state else 1
            self.run_state = told
        events = trainer.events
        if not events and not self.leave_when_done:
            return
        for _ in range(min(len(events), MOST_AT_ONCE)):
            self._take(events.popleft())
        if self.leave_when_done and not trainer.working and not events:
            self.exit(0)

    def _take(self: LabApp, event: Event) -> None:
        from engine.events import RunStarted, SampleDone, TokenGenerated

        if isinstance(event, TokenGenerated | SampleDone):
            self._listeners.get(event.request, _nobody)(event)
        if self.run_state is not None:
            self.run_state.apply(event)
            own = not self.trainer.elsewhere
            if own and isinstance(event, RunStarted) and event.resumed:
                self._recall(self.run_state)

    def _recall(self: LabApp, run: RunState) -> None:
        """Put a resumed run's past before what it says from now on."""

        def read() -> None:
            from tui_lab.history import past_of

            past = past_of(run)
            self.call_from_thread(run.preload, past)

        self.run_worker(read, thread=True, group="history", exit_on_error=False)
