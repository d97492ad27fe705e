"""The terminal driver, with an escape key that is answered at once.

A lone escape and the beginning of an arrow key look alike, so a terminal program waits a moment
for more. Textual looks again only every tenth of a second, whatever `ESCDELAY` says; here the input
is looked at again soon after something came, and rarely while nothing does.
"""

from __future__ import annotations

import os
import selectors
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textual.driver import Driver


class Soon(selectors.SelectSelector):
    """Waits as long as it is told, but only a moment after something was read."""

    MOMENT = 0.02
    QUIET = 5  # moments without input after which it waits as it is told

    def __init__(self) -> None:
        super().__init__()
        self._silent = self.QUIET

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(self.MOMENT if self._silent < self.QUIET else timeout)
        self._silent = 0 if ready else self._silent + 1
        return ready


def quick_driver() -> type[Driver] | None:
    """The driver to give to the app; None where Textual is to choose another than its own for
    POSIX terminals (Windows, or the one that TEXTUAL_DRIVER names)."""
    if sys.platform == "win32" or os.environ.get("TEXTUAL_DRIVER"):
        return None
    from textual.drivers import linux_driver

    class LabDriver(linux_driver.LinuxDriver):
        """Textual's own, which takes its selector from the module's global `selectors`."""

        def run_input_thread(self) -> None:
            linux_driver.selectors = SimpleNamespace(
                SelectSelector=Soon,
                EVENT_READ=selectors.EVENT_READ,
                SelectorKey=selectors.SelectorKey,
            )
            super().run_input_thread()

    return LabDriver
