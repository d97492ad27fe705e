"""What people ask of a run, applied between two steps and recorded with its effect.

Holds what their wishes come to: paused or not, single steps granted, why the run ends and whether
it is saved then. Knows the trainer that carries them out, and nothing of where commands come from.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from engine import control, events

if TYPE_CHECKING:
    from engine.trainer import Trainer

WAIT_SECONDS = 0.5


class Steering:
    """The inbox of one run, and what came of it."""

    def __init__(self, trainer: Trainer, inbox: control.Inbox) -> None:
        self.trainer, self.inbox = trainer, inbox
        self.paused = False
        self.steps_granted = 0  # single steps asked for while paused
        self.ending = ""  # why the run ends, once it does
        self.save_at_end = True

    def obey(self, *, inside: bool = False) -> None:
        """Apply what waits in the inbox; while paused, wait here for more.

        `inside` an evaluation a single step ends the wait and is taken afterwards.
        """
        stop_file = self.trainer.parts.stop_file
        if stop_file():
            self.end("stop file")
        while True:
            for command, who in self.inbox.take():
                self.apply(command, who)
            if self.ending or not self.paused:
                return
            if self.steps_granted:
                self.steps_granted -= not inside
                return
            if stop_file():
                self.end("stop file")
                return
            self.inbox.wait(WAIT_SECONDS)
            self.trainer.relay()

    def apply(self, command: control.Command, who: str) -> None:
        """One command, recorded with its effect."""
        trainer, step = self.trainer, self.trainer.progress.step
        before, after = self.state_word(), ""
        match command:
            case control.Pause():
                after = "paused"
                self.pause()
            case control.Resume():
                after = "training"
                self.resume()
            case control.Step(count):
                after = f"{count} single step{'s' * (count > 1)}"
                self.pause()
                self.steps_granted += max(1, count)
            case control.Stop(save, reason):
                after = reason
                self.save_at_end = save
                self.end(reason)
            case control.SaveNow():
                before = ""
                trainer.report(wait=True)
                trainer.save("manual")
            case control.EvalNow():
                before = ""
                trainer.evaluate()
            case control.SetLearningRate(lr):
                before, after = trainer.set_learning_rate(lr)
            case control.Sample():
                before = ""
                trainer.sample(command)
        name = type(command).__name__
        trainer.emit(
            events.ControlApplied(step=step, command=name, before=before, after=after, who=who)
        )

    def state_word(self) -> str:
        return "paused" if self.paused else "training"

    def pause(self) -> None:
        if not self.paused:
            self.paused = True
            self.trainer.emit(events.Paused(step=self.trainer.progress.step))

    def resume(self) -> None:
        self.steps_granted = 0
        self.trainer.parts.guard.forgive()
        if self.paused:
            self.trainer.moved = time.monotonic()  # before anyone asks why nothing has moved
            self.paused = False
            self.trainer.emit(events.Resumed(step=self.trainer.progress.step))

    def end(self, reason: str) -> None:
        self.ending = self.ending or reason

    def must_leave(self) -> bool:
        """Asked inside long work between two steps: whether it should end early."""
        return bool(self.ending) or self.inbox.holds(control.Stop)

    def must_drop_the_step(self) -> bool:
        """Asked inside a step: whether who waits cannot wait for its end."""
        return self.inbox.urgent() is not None

    def rest(self) -> bool:
        """As `must_leave`, and a pause that waits is kept right here."""
        trainer = self.trainer
        if not self.paused and self.inbox.holds(control.Pause) and not self.must_leave():
            phase = trainer.phase
            self.obey(inside=True)
            trainer.say_phase(phase)
        return self.must_leave()
