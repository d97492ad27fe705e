"""The run goes on after the app, in plain lines. Signals are answered by the caller's watch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.events import Event, Failed
from engine.text import visible
from tui_lab.progress import LineListener
from tui_lab.state import RunState
from tui_lab.trainer_thread import TrainerThread


def follow(
    trainer: TrainerThread, run: RunState | None, signalled: Callable[[], int] = lambda: 0
) -> int:
    """Say how the run goes on until its last word; 1 if it failed, else 0.

    `signalled`: the signal that has asked to stop and save, 0 for none. Before the run's start
    there is nothing to save, and nothing is waited for then.
    """
    name = f"run {run.name} " if run else "the run "
    stopping = bool(run and run.stopping) or bool(signalled())
    listener = LineListener(show_samples=False)
    listener.total = run.max_steps if run else 0
    last: Event | None = None
    with _whatever_the_terminal_does():
        _say(f"{name}goes on without the screen; ctrl-c stops and saves it")
    while True:
        over, working = trainer.over, trainer.working  # before what was said until then is taken
        with _whatever_the_terminal_does():
            while trainer.events:
                last = trainer.events.popleft()
                listener.handle(last)
            listener.pulse()
            if signalled() and not stopping:
                stopping = True
                _say("stopping after this step, and saving; again: leave at once")
        if over or (signalled() and not working):
            break
        trainer.wait(0.2)
    if isinstance(last, Failed):
        with _whatever_the_terminal_does():
            _say(f"error: {last.title}" + (f" ({last.hint})" if last.hint else ""))
        return 1
    return 0


@contextmanager
def _whatever_the_terminal_does() -> Iterator[None]:
    """A terminal that is closed meanwhile (EIO) is replaced by the null device."""
    try:
        yield
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        for number in (1, 2):
            os.dup2(null, number)
        os.close(null)


def _say(line: str) -> None:
    sys.stdout.write(visible(line) + "\n")
    sys.stdout.flush()
