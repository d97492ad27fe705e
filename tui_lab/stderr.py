"""Standard error for what others print there: tracebacks, usage errors, warnings.

They quote text from outside (a file's words in an exception, an argument in a refusal), so
everything is made visible on its way. What the program itself draws there does not pass here.
"""

from __future__ import annotations

import sys
import threading
import warnings
from types import TracebackType
from typing import Any

from engine.text import visible


class VisibleStderr:
    """A text file that writes to whatever `sys.stderr` is at the time, made visible."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        if sys.stderr is not None:
            sys.stderr.write(visible(text))
        return len(text)

    def flush(self) -> None:
        if sys.stderr is not None:
            sys.stderr.flush()

    def isatty(self) -> bool:
        """No: whoever writes here has no use for colours, which would be made visible too."""
        return False


def install() -> None:
    """Have Python's own tracebacks and warnings written by us, in every thread."""
    sys.excepthook = _traceback
    threading.excepthook = _thread_traceback
    warnings.showwarning = _warning


def _traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    import traceback

    VisibleStderr().write("".join(traceback.format_exception(kind, error, trace)))


def _thread_traceback(told: threading.ExceptHookArgs) -> None:
    if told.exc_value is not None and told.exc_type is not SystemExit:
        name = told.thread.name if told.thread is not None else "?"
        VisibleStderr().write(f"in thread {name}: ")
        _traceback(told.exc_type, told.exc_value, told.exc_traceback)


def _warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    text = warnings.formatwarning(message, category, filename, lineno, line)
    (VisibleStderr() if file is None else file).write(text)
