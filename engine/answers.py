"""The answers of a run to samples that other processes asked for: their tokens as files.

    control/answers/<request>.jsonl   TokenGenerated as they come, SampleDone at the end

The process that trains appends with `AnswerFile`, whoever asked reads with `Answers`. What is in a
file is believed no further than `events.from_record` believes it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from engine import events
from engine.control import is_request
from engine.errors import InputError
from engine.metrics import JsonlTail

MAX_BYTES = 32 << 20  # of tokens; of a longer sample only the end is told beyond that

_APPEND = os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)


def answers_folder(run_path: Path) -> Path:
    return run_path / "control" / "answers"


class Answers:
    """The tokens of one sample that was sent, as they come. A run that dies leaves it without end:
    whoever waits looks at the run's status too."""

    def __init__(self, run_path: Path, request: str) -> None:
        """Raises InputError for a request that cannot be one."""
        if not is_request(request):
            raise InputError(f"'{request:.50}' cannot be a request's name")
        self._request = request
        self._path = answers_folder(run_path) / f"{request}.jsonl"
        self._tail = JsonlTail(self._path)

    def poll(self) -> list[events.Event]:
        """What is new: TokenGenerated, and SampleDone at the end. Never raises."""
        found: list[events.Event] = []
        for record in self._tail.poll():
            with suppress(TypeError, ValueError):
                event = events.from_record(record)
                if isinstance(event, events.TokenGenerated):
                    event = _believed(event)
                if isinstance(event, events.TokenGenerated | events.SampleDone):
                    found += [event] if event.request == self._request else []
        return found

    def close(self) -> None:
        """Take the file away: nobody else reads it."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def _believed(event: events.TokenGenerated) -> events.TokenGenerated:
    """With the types that its fields declare. Raises TypeError or ValueError for others."""
    return replace(
        event,
        token=int(event.token),
        text=str(event.text),
        probability=float(event.probability),
        alternatives=tuple((str(text), float(share)) for text, share in event.alternatives),
        entropy=float(event.entropy),
        alternative_ids=tuple(int(token) for token in event.alternative_ids),
        cache_bytes=int(event.cache_bytes),
    )


class AnswerFile:
    """One sample's lines. A disk that is full, or a reader that is gone, ends it silently."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[str] = []
        self._size = 0
        self._flags = _APPEND | os.O_CREAT

    def add(self, event: events.Event) -> None:
        if self._size <= MAX_BYTES or isinstance(event, events.SampleDone):
            line = events.to_json(event) + "\n"
            self._size += len(line)
            self._lines.append(line)

    def flush(self) -> None:
        if not self._lines:
            return
        data = "".join(self._lines).encode("utf-8", "replace")
        self._lines.clear()
        with suppress(OSError):
            with os.fdopen(os.open(self._path, self._flags, 0o600), "ab") as file:
                file.write(data)
            self._flags = _APPEND  # once its reader has taken it away, it does not come back
