"""The run goes on after the app: plain lines, and signals that stop and save it."""

from __future__ import annotations

import os
import signal
import sys

from engine.control import Stop
from engine.events import Event, Failed
from engine.text import visible
from tui_lab.progress import LineListener
from tui_lab.state import RunState
from tui_lab.trainer_thread import TrainerThread

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def follow(trainer: TrainerThread, run: RunState | None) -> int:
    """Wait for the run to end, saying how it does; the process's exit code.

    A first SIGINT or SIGTERM stops after the step in hand and saves; a second SIGINT leaves
    at once.
    """
    caught: list[int] = []
    for number in EXIT_CODES:
        signal.signal(number, lambda signum, frame: caught.append(signum))
    name = f"run {run.name} " if run else "the run "
    stopping = bool(run and run.stopping)
    _say(f"{name}goes on without the screen; ctrl-c stops and saves it")
    listener = LineListener(show_samples=False)
    listener.total = run.max_steps if run else 0
    last: Event | None = None
    while True:
        ended = trainer.wait(0.2)
        while trainer.events:
            last = trainer.events.popleft()
            listener.handle(last)
        listener.pulse()
        if ended:
            break
        if caught and not stopping:
            stopping = True
            trainer.put(Stop(save=True, reason=signal.Signals(caught[0]).name), "signal")
            _say("stopping after this step, and saving; again: leave at once")
        if caught.count(signal.SIGINT) > 1:
            _say("interrupted again: left without waiting for the save")
            os._exit(130)
    if isinstance(last, Failed):
        _say(f"error: {last.title}" + (f" ({last.hint})" if last.hint else ""))
        return 1
    return EXIT_CODES.get(caught[0], 0) if caught else 0


def _say(line: str) -> None:
    sys.stdout.write(visible(line) + "\n")
    sys.stdout.flush()
