"""The link to the terminal: what it carries, and the calmer screen for a slow one.

On a slow link the screen looks once a second, sends fewer bytes, moves nothing and draws its charts
coarsely. Asked for by the setting, the environment or a key; and the screen goes over to it by
itself when the terminal takes what is drawn more slowly than it is drawn.

A mixin of `LabApp`, which has the pace, the settings and the driver.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tui_lab.app import LabApp
    from tui_lab.screen_cost import ScreenCost

VARIABLE = "TUI_LAB_SLOW_LINK"
CHOICES = ("auto", "always", "never")
_WORDS = {"1": "always", "on": "always", "yes": "always", "true": "always"}
_WORDS |= {"0": "never", "off": "never", "no": "never", "false": "never"}

BYTES_PER_SECOND = 10_000.0
SLOW_BYTES_PER_SECOND = 1_500.0
SLOW_REFRESH = 1.0  # looks a second
KEEP_SECONDS = 10.0
"""Between two times that the cost of the screen is written down: see `tui_lab.screen_cost`."""


def choice(setting: str) -> str:
    """auto, always or never: what the environment says, else the setting, else auto."""
    word = os.environ.get(VARIABLE, "").lower() or setting
    word = _WORDS.get(word, word)
    return word if word in CHOICES else "auto"


class Link:
    """`slow_link`: whether the screen is drawn for a slow link now."""

    slow_link = False

    def choose_link(self: LabApp) -> None:
        """Draw as the environment and the settings want it. Once, before anything is drawn."""
        self._opened = self._kept = time.monotonic()
        chosen = choice(self.settings.slow_link)
        self._link_is_watched = chosen == "auto"
        self._animated = self.animation_level
        self._set_slow(chosen == "always")

    @property
    def bytes_drawn(self: LabApp) -> int:
        """What was sent to the terminal since the app began; 0 where another driver draws."""
        return getattr(self._driver, "written", 0)

    def keep_cost(self: LabApp) -> None:
        """Write down what the screen costs, every now and then, and not in this thread: a file
        system may take its time."""
        if self.bytes_drawn and time.monotonic() - self._kept > KEEP_SECONDS:
            from tui_lab import screen_cost

            self._kept = time.monotonic()
            told = (self.screen_cost(),)
            threading.Thread(target=screen_cost.keep, args=told, daemon=True).start()

    def screen_cost(self: LabApp) -> ScreenCost:
        """What the screen has cost until now."""
        from engine.status import own_mark
        from tui_lab.screen_cost import ScreenCost

        return ScreenCost(
            pid=os.getpid(),
            mark=own_mark(),
            time=time.time(),
            seconds=time.monotonic() - self._opened,
            bytes=self.bytes_drawn,
            bytes_per_second=self.pace.bytes_per_second,
            share=self.pace.share,
            looks_per_second=self.pace.looks_per_second,
            columns=self.size.width,
            lines=self.size.height,
            slow_link=self.slow_link,
        )

    def link_is_slow(self: LabApp) -> None:
        """The driver has found out; once, and only where nobody has said how to draw."""
        if self._link_is_watched and not self.slow_link:
            self._link_is_watched = False
            self._set_slow(True)
            self.notify_safe(
                "It is drawn more rarely and more coarsely from now on; f4 goes back.",
                title="The terminal is slow",
                severity="warning",
            )

    def action_slow_link(self: LabApp) -> None:
        """The other way of drawing, for as long as the app runs."""
        self._link_is_watched = False
        self._set_slow(not self.slow_link)

    def _set_slow(self: LabApp, slow: bool) -> None:
        self.slow_link = slow
        self.pace.refresh = min(self.settings.refresh, SLOW_REFRESH if slow else 30.0)
        self.pace.link = SLOW_BYTES_PER_SECOND if slow else BYTES_PER_SECOND
        self.animation_level = "none" if slow else self._animated
        if self.run_state is not None:
            self.run_state.version += 1  # seen again, and then drawn the other way
