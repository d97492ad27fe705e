"""What the engine is told: typed commands, put in an inbox from any thread.

The trainer looks into the inbox at step boundaries only (a stop or a pause also between evaluation
batches and generated tokens), so that a command never meets a half-done step. Who asked travels
with the command and is recorded with its effect.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

from engine.generation.params import SamplingParams


@dataclass(frozen=True)
class Pause:
    pass


@dataclass(frozen=True)
class Resume:
    pass


@dataclass(frozen=True)
class Step:
    """While paused: take `count` steps, then be paused again."""

    count: int = 1


@dataclass(frozen=True)
class Stop:
    """End the run after the step in hand; with `save` the weights are kept (policy permitting).

    `urgent`: whoever asks will end the process soon. If the loop does not come to its next step
    boundary within seconds, the state of the last one is saved without waiting for it.
    """

    save: bool = True
    reason: str = "stopped"
    urgent: bool = False


@dataclass(frozen=True)
class SaveNow:
    pass


@dataclass(frozen=True)
class EvalNow:
    pass


@dataclass(frozen=True)
class SetLearningRate:
    """From the next step on, the schedule is scaled so that its value here and now is `lr`.

    `lr` None gives the schedule back.
    """

    lr: float | None


@dataclass(frozen=True)
class Sample:
    """Generate from the weights as they are now; tokens come as events carrying `request`."""

    prompt: str
    params: SamplingParams = field(default_factory=SamplingParams)
    request: str = ""


@dataclass(frozen=True)
class CancelSample:
    request: str


Command = Pause | Resume | Step | Stop | SaveNow | EvalNow | SetLearningRate | Sample | CancelSample


class Inbox:
    """A queue of (command, who) that any thread may fill and the trainer empties."""

    def __init__(self) -> None:
        self._commands: deque[tuple[Command, str]] = deque()
        self._filled = threading.Event()
        self._cancelled: set[str] = set()

    def put(self, command: Command, who: str = "user") -> None:
        if isinstance(command, CancelSample):
            self._cancelled.add(command.request)
        else:
            self._commands.append((command, who))
        self._filled.set()

    def take(self) -> list[tuple[Command, str]]:
        """Everything that waits, in order; the inbox is empty afterwards."""
        self._filled.clear()
        taken = []
        while self._commands:
            taken.append(self._commands.popleft())
        return taken

    def wait(self, seconds: float) -> bool:
        """Sleep until something comes, at most `seconds`; says whether something is there."""
        return self._filled.wait(seconds)

    def holds(self, kind: type[Command]) -> bool:
        """Whether a command of this kind waits: long work between steps asks, without taking."""
        return any(isinstance(command, kind) for command, _ in tuple(self._commands))

    def is_cancelled(self, request: str) -> bool:
        return request in self._cancelled
