"""What the engine is told: typed commands, put in an inbox from any thread.

The trainer looks into the inbox at step boundaries only (a stop or a pause also between evaluation
batches and generated tokens), so that a command never meets a half-done step. Who asked travels
with the command and is recorded with its effect.

A command becomes one JSON object by `to_record`, and back by `from_record`, which believes nothing:
records come from files that anybody may have written.
"""

from __future__ import annotations

import math
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args

from engine.errors import InputError
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
    """Generate from the weights as they are now; tokens come as events carrying `request`.

    `continued`: tokens that follow the prompt already, as of a text from which this one branches
    off; the last of them is the first that is given out.
    """

    prompt: str
    params: SamplingParams = field(default_factory=SamplingParams)
    request: str = ""
    continued: tuple[int, ...] = ()


@dataclass(frozen=True)
class CancelSample:
    request: str


Command = Pause | Resume | Step | Stop | SaveNow | EvalNow | SetLearningRate | Sample | CancelSample


KINDS: dict[str, type[Command]] = {kind.__name__: kind for kind in get_args(Command)}
"""Every command by the name that its record carries."""

MAX_PROMPT = 100_000  # characters
MAX_CONTINUED = 50_000  # tokens: with a prompt they still fit a command's file
MAX_LINE = 200
MAX_STEPS = 1_000_000
_REQUEST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def is_request(text: str) -> bool:
    """Whether `text` may name a request: it becomes part of a file's name."""
    return _REQUEST.fullmatch(text) is not None


def to_record(command: Command) -> dict[str, Any]:
    """The command as a JSON-ready object."""
    return {"command": type(command).__name__, **asdict(command)}


def from_record(record: Mapping[str, Any]) -> Command:
    """The command that `record` describes. Raises InputError naming the field that is wrong.

    A field that is absent takes its default; one that is not known is refused, since passing over
    it could change what was asked for.
    """
    name = record.get("command")
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise InputError(f"unknown command {name!r:.50}", f"known: {', '.join(KINDS)}")
    given = {key: value for key, value in record.items() if key != "command"}
    known = {f.name for f in fields(kind)}
    if unknown := sorted(set(given) - known):
        raise InputError(f"{name} has no field {unknown[0]!r:.50}")
    for key, value in given.items():
        takes, what = _FIELDS[kind.__name__, key]
        if not takes(value):
            raise InputError(f"{name}: {key} must be {what}")
    if kind is Sample:
        given["params"] = _params_from(given.get("params", {}))
        given["continued"] = tuple(given.get("continued", ()))
    try:
        return kind(**given)
    except TypeError as error:
        raise InputError(
            f"{name} lacks a field: {', '.join(sorted(known - set(given)))}"
        ) from error


def _params_from(record: Mapping[str, Any]) -> SamplingParams:
    """Raises InputError, here for a wrong type and in SamplingParams for a wrong value."""
    kinds = {f.name: str(f.type) for f in fields(SamplingParams)}
    for key, value in record.items():
        if key not in kinds:
            raise InputError(f"Sample: params has no field {key!r:.50}")
        if not _PARAMS[kinds[key]](value):
            raise InputError(f"Sample: params.{key} must be {kinds[key]}")
    values = dict(record)
    if "stop" in values:
        values["stop"] = tuple(values["stop"])
    return SamplingParams(**values)


def _is_text(value: Any, most: int) -> bool:
    """A string of at most `most` characters that can be encoded (no lone surrogates)."""
    if type(value) is not str or len(value) > most:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _is_whole(value: Any) -> bool:
    return type(value) is int


def _are_tokens(value: Any, most: int) -> bool:
    """Ids of any vocabulary: whether a model has them is for the model to say."""
    return (
        isinstance(value, list | tuple)
        and len(value) <= most
        and all(_is_whole(token) and 0 <= token < 2**31 for token in value)
    )


def _is_number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < 2**63
    return type(value) is float and math.isfinite(value)


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_rate(value: Any) -> bool:
    return value is None or (_is_number(value) and 0 < value < 10)


_LINE = (lambda value: _is_text(value, MAX_LINE), f"a text of at most {MAX_LINE} characters")
_FLAG = (_is_flag, "true or false")
_FIELDS: dict[tuple[str, str], tuple[Callable[[Any], bool], str]] = {
    ("Step", "count"): (
        lambda value: _is_whole(value) and 1 <= value <= MAX_STEPS,
        f"a whole number from 1 to {MAX_STEPS}",
    ),
    ("Stop", "save"): _FLAG,
    ("Stop", "reason"): _LINE,
    ("Stop", "urgent"): _FLAG,
    ("SetLearningRate", "lr"): (_is_rate, "a number above 0 and below 10, or null"),
    ("Sample", "prompt"): (
        lambda value: _is_text(value, MAX_PROMPT),
        f"a text of at most {MAX_PROMPT} characters",
    ),
    ("Sample", "params"): (lambda value: isinstance(value, Mapping), "an object"),
    ("Sample", "request"): (
        lambda value: value == "" or (type(value) is str and is_request(value)),
        "letters, digits, dots and dashes (64 at most)",
    ),
    ("Sample", "continued"): (
        lambda value: _are_tokens(value, MAX_CONTINUED),
        f"at most {MAX_CONTINUED} token ids",
    ),
    ("CancelSample", "request"): (
        lambda value: type(value) is str and is_request(value),
        "letters, digits, dots and dashes (64 at most)",
    ),
}
"""What each field takes, as a test and as words."""

_PARAMS: dict[str, Callable[[Any], bool]] = {
    "float": _is_number,
    "int": _is_whole,
    "int | None": lambda value: value is None or _is_whole(value),
    "tuple[str, ...]": lambda value: (
        isinstance(value, list | tuple)
        and len(value) <= 16
        and all(_is_text(each, 1000) for each in value)
    ),
}


class Inbox:
    """A queue of (command, who) that any number of threads may fill and the trainer empties."""

    def __init__(self) -> None:
        self._commands: deque[tuple[Command, str]] = deque()
        self._lock = threading.Lock()
        self._filled = threading.Event()
        self._cancelled: set[str] = set()

    def put(self, command: Command, who: str = "user") -> None:
        with self._lock:
            if isinstance(command, CancelSample):
                self._cancelled.add(command.request)
            else:
                self._commands.append((command, who))
            self._filled.set()

    def take(self) -> list[tuple[Command, str]]:
        """Everything that waits, in order; the inbox is empty afterwards."""
        with self._lock:
            self._filled.clear()
            taken = list(self._commands)
            self._commands.clear()
        return taken

    def wait(self, seconds: float) -> bool:
        """Sleep until something comes, at most `seconds`; says whether something is there."""
        return self._filled.wait(seconds)

    def holds(self, kind: type[Command]) -> bool:
        """Whether a command of this kind waits: long work between steps asks, without taking."""
        with self._lock:
            return any(isinstance(command, kind) for command, _ in self._commands)

    def urgent(self) -> Stop | None:
        """The stop that waits here and cannot wait long, if there is one."""
        with self._lock:
            waiting = [command for command, _ in self._commands]
        return next((c for c in waiting if isinstance(c, Stop) and c.urgent), None)

    def is_cancelled(self, request: str) -> bool:
        return request in self._cancelled
