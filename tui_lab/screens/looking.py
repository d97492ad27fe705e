"""A screen of files that others write: it looks at them every second, in a thread.

What a look found waits in a deque until the next tick, so that neither a slow disk nor a slow
screen holds the other up.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from textual.worker import get_current_worker

from engine.errors import CheckpointError, EngineError
from tui_lab.screens.base import LabScreen

if TYPE_CHECKING:
    from tui_lab.app import LabApp

EVERY = 1.0
"""Seconds between looks while the screen is shown."""


def refuse_ended(run: str, step: int, max_steps: int) -> None:
    """Raise CheckpointError when a run resumed at `step` would have nothing left to do."""
    if max_steps and step >= max_steps:
        raise CheckpointError(
            f"'{run}' is at its end, step {step} of {max_steps}",
            f"give it a longer one: tui-lab train --resume {run} --max-steps {2 * max_steps}",
        )


class LookingScreen(LabScreen):
    """Subclasses say `read` (in the thread) and `take` (on the screen)."""

    def __init__(self) -> None:
        super().__init__()
        self._found: deque[Any] = deque()
        self._looking = False
        self._looked = -EVERY
        self._refused = ""  # the last error shown: the same one is not shown every second

    def read(self, stopped: Callable[[], bool]) -> Any:
        """Read the files; give up early once `stopped()`. May raise EngineError and OSError."""
        raise NotImplementedError

    def take(self, found: Any) -> None:
        """Show what `read` returned."""
        raise NotImplementedError

    def look(self) -> None:
        """Start a look at the files, unless one is under way."""
        if not self._looking:
            self._looking, self._looked = True, time.monotonic()
            self.run_worker(self._look, thread=True, group="look", exit_on_error=False)

    def look_soon(self) -> None:
        """Look at the next tick."""
        self._looked = -EVERY

    def _look(self) -> None:
        worker = get_current_worker()
        try:
            self._found.append(self.read(lambda: worker.is_cancelled))
        except EngineError as error:
            self._found.append(error)
        except OSError as error:
            name = error.filename or ""
            self._found.append(CheckpointError(f"cannot read '{name}': {error.strerror}"))
        finally:
            self._looking = False

    def tick(self, app: LabApp) -> None:
        if time.monotonic() - self._looked > EVERY:
            self.look()
        if not self._found:
            return
        found = self._found.pop()
        self._found.clear()
        if not isinstance(found, EngineError):
            self._refused = ""
            self.take(found)
        elif found.title != self._refused:
            self._refused = found.title
            app.show_error(found)
