"""The one family of errors that the engine raises on purpose.

An `EngineError` is written for the person who reads it: `title` says what is wrong and in which
file or field, `hint` says what to do about it. Front ends show both and add nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class EngineError(Exception):
    """Something went wrong that the user can understand. `exit_code` 1: the work failed."""

    exit_code = 1

    def __init__(self, title: str, hint: str = "") -> None:
        super().__init__(title)
        self.title = title
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.title} ({self.hint})" if self.hint else self.title


class InputError(EngineError):
    """What was asked for is wrong or not there: nothing was started, nothing was written."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration has an unknown key, or a value that its field does not take."""


class CorpusError(InputError):
    """A corpus is unknown, absent, empty, binary, or too short for what was asked."""


class TokenizerError(InputError):
    """A tokenizer is unknown, its files are absent, or they are not what they should be."""


class CheckpointError(InputError):
    """A run or a checkpoint is absent or broken."""


class DeviceError(InputError):
    """The device asked for is not in this machine."""


def in_words(error: BaseException) -> str:
    """Any exception in one line, its kind and its first words; an EngineError in its own.

    Never raises, whatever the exception's own `__str__` does.
    """
    kind = type(error).__name__
    try:
        words = str(error).strip()
    except Exception:  # it is somebody else's code, and this is no place to fail
        return f"{kind} (it cannot be put into words)"
    if isinstance(error, EngineError):
        return words
    return f"{kind}: {words.splitlines()[0]}" if words else kind


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint naming the nearest known name, or all of them when none is near."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.55)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known: {', '.join(names)}" if names else ""
