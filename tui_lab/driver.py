"""The terminal driver: Textual's own for POSIX, made to survive what terminals do.

A terminal that takes no data holds nobody up: what is drawn meanwhile is dropped, and one full
repaint follows. One that is gone is told to the app once, instead of being read for ever. A stop
and its end (SIGTSTP, SIGSTOP, SIGCONT) leave one terminal, one input thread, and the settings that
were found first. And a lone escape, which looks like the beginning of an arrow key, is answered at
once: Textual looks again only every tenth of a second, whatever `ESCDELAY` says.

Imported on POSIX alone. Knows of the app only that it has `hung_up`, `link_is_slow` and a screen to
repaint.
"""

from __future__ import annotations

import asyncio
import math
import os
import selectors
import signal
import termios
import threading
import time
from codecs import getincrementaldecoder
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from textual import constants, events
from textual._ansi_sequences import SYNC_END, SYNC_START
from textual._parser import ParseError
from textual._xterm_parser import XTermParser
from textual.drivers import linux_driver
from textual.geometry import Size

from tui_lab.terminal_writer import TerminalWriter, is_lost

RESTORE = (
    "\x1b[?2004l\x1b[?7h\x1b[?2048l"  # pasting, wrapping, reports of the size
    "\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?1016l"  # the mouse
    "\x1b[<u\x1b[?1049l\x1b[?25h\x1b[?1004l"  # keyboard, screen, cursor, focus
)
"""Everything that the application mode switches on, switched off, in Textual's order."""

RESIZE_SECONDS = 0.05
STORM_SECONDS = 0.5
"""From a change of the size to the new layout: as good as at once; twice a second in a storm of
changes, because laying out everything anew takes its time from the training."""

CHANGE_SECONDS = 0.5
"""Longer than a change of modes takes, unless the terminal takes nothing."""

AWAY_SECONDS = 0.3
"""Between two looks at whether a shell has given the terminal back."""


class Soon(selectors.SelectSelector):
    """Waits as long as it is told, but only a moment after something was read."""

    MOMENT = 0.005
    QUIET = math.ceil(constants.ESCAPE_DELAY / MOMENT) + 1
    """Moments without input after which it waits as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self._silent = self.QUIET

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(self.MOMENT if self._silent < self.QUIET else timeout)
        self._silent = 0 if ready else self._silent + 1
        return ready


class LabDriver(linux_driver.LinuxDriver):
    """`drawing`: whether the terminal is in application mode, and ours to draw on."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.drawing = False
        self._switching = False  # what is written now changes the terminal's modes
        self._frame: list[str] | None = None
        self._found: list[Any] | None = None  # the terminal's settings before the app
        self._gone = False
        self._changing = threading.RLock()  # held while the terminal goes from one mode to another
        self._returning: asyncio.TimerHandle | None = None
        self._resizing = False  # somebody will look at the size soon
        self._resized_at = 0.0
        self._written = 0  # bytes, by the writers before this one

    # Drawing.

    @property
    def written(self) -> int:
        """Bytes that were sent to the terminal since the app began."""
        return self._written + int(getattr(self._writer_thread, "written", 0))

    @property
    def behind(self) -> bool:
        """Whether the terminal takes nothing at present: whatever is drawn will be drawn again."""
        return bool(getattr(self._writer_thread, "behind", False))

    def write(self, data: str) -> None:
        """Hand over one whole frame, or one whole sequence outside of frames; never waits."""
        writer = self._writer_thread
        if writer is None:
            return
        if data == SYNC_START:
            self._frame = []
        if self._frame is not None:
            self._frame.append(data)
            if data != SYNC_END:
                return
            data, self._frame = "".join(self._frame), None
        writer.write(data, keep=self._switching)  # type: ignore[call-arg]

    def _make_writer(self, file: Any) -> TerminalWriter:
        self._written = self.written  # the writer before, if any, is about to be replaced
        return TerminalWriter(file.fileno(), self._caught_up, self._lost, self._slow)

    def _slow(self) -> None:
        """The terminal takes what is drawn, but not as fast as it is drawn."""
        with suppress(RuntimeError):  # the loop has closed meanwhile
            self._loop.call_soon_threadsafe(self._app.link_is_slow)  # type: ignore[attr-defined]

    def _caught_up(self) -> None:
        """The terminal takes data again: what it shows is from before, so draw every cell."""
        with suppress(RuntimeError):  # the loop has closed meanwhile
            self._loop.call_soon_threadsafe(self._repaint)

    def _repaint(self) -> None:
        if self.drawing:
            self._look_at_size()
            self._app.paint_everything()  # type: ignore[attr-defined]

    def _on_winch(self, *_: object) -> None:
        """The window changes its size, perhaps many times a second: follow at some distance."""
        if not (self._resizing or self._in_band_window_resize):
            self._resizing = True
            calm = time.monotonic() - self._resized_at > 2 * STORM_SECONDS
            delay = RESIZE_SECONDS if calm else STORM_SECONDS
            self._loop.call_soon_threadsafe(self._loop.call_later, delay, self._resized)

    def _resized(self) -> None:
        self._resizing, self._resized_at = False, time.monotonic()
        if self.drawing and not self.behind:  # else a repaint follows anyway
            self._look_at_size()

    def _look_at_size(self) -> None:
        size = Size(*self._get_terminal_size())
        if size != self._app.size:
            self._app.post_message(events.Resize(size, size))

    # The two modes.

    @contextmanager
    def _changing_modes(self) -> Iterator[None]:
        self._switching, self._frame = True, None
        try:
            yield
        finally:
            self._switching = False

    def start_application_mode(self) -> None:
        with self._changing:
            self._take_terminal()

    def _take_terminal(self) -> None:
        theirs = linux_driver.WriterThread
        linux_driver.WriterThread = self._make_writer  # type: ignore[assignment, misc]
        try:
            with self._changing_modes():
                super().start_application_mode()
        finally:
            linux_driver.WriterThread = theirs  # type: ignore[misc]
        if self._found is None:
            self._found = self.attrs_before
        # After a bare SIGSTOP they are the app's own, or another program's.
        self.attrs_before = self._found
        # Running in the background must not stop the training: the terminal is let alone instead.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        signal.signal(signal.SIGTTIN, signal.SIG_IGN)
        signal.signal(signal.SIGWINCH, self._on_winch)
        # Textual returns early where the terminal is another job's: SIGCONT will come.
        self.drawing = self._writer_thread is not None

    def stop_application_mode(self) -> None:
        with self._changing:
            if self.drawing:
                self.drawing = False
                with self._changing_modes():
                    super().stop_application_mode()

    def give_back(self) -> None:
        """Restore the terminal now, from any thread, whatever the event loop is doing; does not
        wait for a terminal that takes nothing."""
        self.exit_event.set()
        # The event loop may be at it right now, and whoever ends the process next would cut it off.
        held = self._changing.acquire(timeout=CHANGE_SECONDS)
        drawing, self.drawing = self.drawing, False
        if self._writer_thread is not None:
            if drawing:
                self._writer_thread.write(RESTORE, keep=True)  # type: ignore[call-arg]
            self._writer_thread.stop(0.3)  # type: ignore[call-arg]
        if drawing and self._found is not None:
            with suppress(termios.error):
                termios.tcsetattr(self.fileno, termios.TCSANOW, self._found)
        if held:
            self._changing.release()

    # Stopped and continued. The signals are answered by whoever watches them (`Leaving`), in the
    # event loop: a handler could come in the middle of a write.

    def _sigtstp_application(self, *_: object) -> None:
        """See `step_aside`."""

    def _sigcont_application(self, *_: object) -> None:
        """See `come_back`."""

    def step_aside(self) -> None:
        """Restore the terminal and stop the process, as SIGTSTP asks."""
        self.suspend_application_mode()
        os.kill(os.getpid(), signal.SIGSTOP)

    def come_back(self) -> None:
        """Take the terminal again after a stop; from the background, once it is given back."""
        if self._returning is not None:
            self._returning.cancel()
        if self._gone or not self._app.is_running:
            return
        away = self._in_background()
        if self.drawing and self._writer_thread is not None:
            # SIGSTOP gave no warning: others may have used the terminal since.
            if away:
                self.attrs_before = None  # the settings are the shell's now
            self.stop_application_mode()
            self._writer_thread.stop(0.2)  # type: ignore[call-arg]
        if away:
            self._returning = self._loop.call_later(AWAY_SECONDS, self.come_back)
            return
        self.start_application_mode()
        self._repaint()

    def _in_background(self) -> bool:
        """Whether the terminal is another job's at present."""
        try:
            return os.tcgetpgrp(self.fileno) != os.getpgrp()
        except OSError:  # no controlling terminal: nobody can take it away
            return False

    # Input.

    def run_input_thread(self) -> None:
        """Turn input into messages until the app ends or the terminal is gone."""
        parser = XTermParser(self._debug)
        decoder = getincrementaldecoder("utf-8")("replace")
        with Soon() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                if selector.select(0.1):
                    if (data := self._read()) is None:
                        self._lost()
                        break
                    if text := decoder.decode(data):
                        for message in parser.feed(text):
                            self.process_message(message)
                for message in parser.tick():
                    self.process_message(message)
        with suppress(EOFError, ParseError):
            for _ in parser.feed(""):
                pass

    def _read(self) -> bytes | None:
        """What has been typed; None once the terminal is gone."""
        try:
            data = os.read(self.fileno, 4096)
        except OSError:
            data = b""
        if data:
            return data
        if is_lost(self.fileno):
            return None
        # In the background, or the end-of-file key under another program's settings.
        time.sleep(0.1)
        return b""

    def _lost(self) -> None:
        """The terminal is gone (called by the thread that found out)."""
        if not self._gone:
            self._gone, self.drawing = True, False
            self._app.hung_up()  # type: ignore[attr-defined]
