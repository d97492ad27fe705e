"""A run told from its files, as events in order: whoever trains it, here or on another host.

`Follower.poll` says what is new since the last call, in bounded pieces: a history of a million
steps comes as many small portions. What the files do not say (memory, the phase, a process that is
gone) is told from the run's status. Files are believed no further than an event's own fields: a
line that is none is passed over. Knows neither the screen nor the process that trains.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import MISSING, Field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from engine.checkpoints.find import RUN_FILE
from engine.checkpoints.tensors import read_json
from engine.config import Config, load_file, to_toml
from engine.errors import CheckpointError, ConfigError
from engine.events import (
    DeviceStats,
    EvalDone,
    EvalProgress,
    Event,
    Failed,
    Finished,
    Phase,
    RolledBack,
    RunStarted,
    StepDone,
)
from engine.metrics import EVENTS_FILE, METRICS_FILE, JsonlTail
from engine.status import ACTIVE, Status, judged, read_status

PIECE = 64 << 10
"""Bytes of a file that one `poll` reads at most: some milliseconds of work."""
UNSAID_SECONDS = 5.0
"""A folder that says nothing of its run for so long is not one in the making."""


class Follower:
    """`status` and `state` (`engine.status.judged`) are those of the last `poll`."""

    def __init__(self, run_path: Path | str) -> None:
        self.path = Path(run_path)
        self.status = Status()
        self.state = "unknown"
        self.caught_up = False  # the last poll came to the end of both files
        self._events = _Source(self.path / EVENTS_FILE)
        self._metrics = _Source(self.path / METRICS_FILE)
        self._started = self._ended = False
        self._passing: tuple[Any, ...] = ()
        self._since = time.monotonic()

    @property
    def alive(self) -> bool:
        """Whether a process trains the run, as far as one can know."""
        return self.state in ACTIVE

    @property
    def progress(self) -> tuple[int, int]:
        """Bytes of the history that were read, and that there are."""
        tails = self._events.tail, self._metrics.tail
        return sum(tail.offset for tail in tails), sum(tail.size for tail in tails)

    def poll(self) -> list[Event]:
        """What is new, in order: a RunStarted comes first, and Finished or Failed once it is over.

        Nothing new may mean that a piece held nothing: `caught_up` tells. Never raises OSError.
        """
        # The status before the files, and the events before the steps: what each says happened
        # earlier than what is read after it, since a run writes its files the other way round.
        self.status = read_status(self.path)
        self.state = judged(self.status)
        self._events.read()
        self._metrics.read()
        found = list(self._in_order())
        self.caught_up = self._events.done and self._metrics.done
        if self.caught_up:
            now = self._passing_events() if self._started or found else []
            # The status may still tell of an evaluation whose end has just been read.
            scored = any(isinstance(event, EvalDone) for event in found)
            found = [*now, *found] if scored else [*found, *now]
            found += self._last_word(found)
        if found and not self._started:
            self._started = True
            found.insert(0, self._introduction())
        return found

    def _in_order(self) -> Iterator[Event]:
        """What waits of both files, by time; in one file the order of its lines always holds."""
        events, steps = self._events, self._metrics
        while (events.waiting or events.at_end) and (steps.waiting or steps.at_end):
            if events.waiting and (
                not steps.waiting or self._is_first(events.waiting[0], steps.waiting[0])
            ):
                event = events.waiting.popleft()
                if steps.waiting and steps.waiting[0] is None and _goes_back(event):
                    steps.waiting.popleft()
                yield self._noted(event)  # type: ignore[arg-type]
            elif steps.waiting:
                if (step := steps.waiting.popleft()) is not None:
                    yield step
            else:
                return

    def _is_first(self, event: Event | None, step: Event | None) -> bool:
        """Whether an event comes before the step that waits."""
        # Whatever the clocks said: the first word comes first, and steps that went back wait for
        # the event that says so.
        if step is None or event is None or (isinstance(event, RunStarted) and not self._started):
            return True
        return event.time < step.time

    def _noted(self, event: Event) -> Event:
        if isinstance(event, RunStarted):
            self._started, self._ended = True, False
            # The folder may have been moved, or be known by another path on another host.
            return replace(event, run=self.path.name, path=str(self.path))
        self._ended = self._ended or isinstance(event, Finished | Failed)
        return event

    def _passing_events(self) -> list[Event]:
        """What is true now and stands in no history."""
        status, step = self.status, self.status.step
        # Of a run on another host that is not heard of, the last that it said may not hold.
        phase = {"stalled": "stalled", "unknown": "silent"}.get(self.state, status.phase)
        if status.state not in ACTIVE or self.state == "crashed":
            return []
        now = (phase, status.phase_done, status.phase_total, status.used_bytes, status.updated)
        if now == self._passing or phase == "loading":
            return []
        told, self._passing = self._passing, now
        at, found = status.updated, list[Event]()
        if phase == "evaluating" and status.phase_total:
            done, total = status.phase_done, status.phase_total
            found.append(EvalProgress(time=at, step=step, done=done, total=total))
        elif not told or told[:3] != now[:3]:
            found.append(Phase(time=at, phase=phase or "training", step=step))
        if status.used_bytes is not None:
            found.append(
                DeviceStats(
                    time=at,
                    used=status.used_bytes,
                    peak=status.peak_bytes or 0,
                    total=status.total_bytes or 0,
                    reserved=status.reserved_bytes,
                    utilization=status.utilization,
                    temperature=status.temperature,
                    power=status.power,
                )
            )
        return found

    def _last_word(self, found: list[Event]) -> list[Event]:
        """How the run ended, where its own last word is missing."""
        status, run = self.status, self.path.name
        if self._ended or self.alive or (self.state == "unknown" and status.state in ACTIVE):
            return []
        again = f"resume with: tui-lab train --resume {run}"
        if self.state == "unknown":
            if not (self._started or found) and time.monotonic() - self._since < UNSAID_SECONDS:
                return []
            title, hint = "nothing tells how this run ended", again
        elif self.state == "crashed":
            title = f"process {status.pid} on {status.host} is gone (crashed)"
            hint = f"step {status.step} was the last that it told; {again}"
        elif self.state == "failed":
            title, hint = status.error or "the run failed", again
        else:
            self._ended = True
            reason = status.reason or ("completed" if self.state == "finished" else "stopped")
            return [
                Finished(
                    time=status.updated,
                    run=run,
                    step=status.step,
                    tokens=status.tokens,
                    reason=reason,
                    seconds=status.seconds,
                    loss=status.loss,
                    val_loss=status.val_loss,
                    best_val_loss=status.best_val_loss,
                    best_step=status.best_step,
                )
            ]
        self._ended = True
        at = status.updated or time.time()
        return [Failed(time=at, step=status.step, title=title, hint=hint, run=run)]

    def _introduction(self) -> RunStarted:
        """What can be told of a run whose own first word is missing."""
        config: Config | None = None
        with suppress(ConfigError):
            config = load_file(self.path / "config.toml")
        identity: dict[str, Any] = {}
        with suppress(CheckpointError):
            identity = read_json(self.path / RUN_FILE)
        created = identity.get("created")
        per_step = 0
        if config is not None:
            windows = config.train.batch_size * config.train.accumulate
            per_step = windows * config.model.context_length
        return RunStarted(
            time=created if _is_number(created) else self.status.updated,
            run=self.path.name,
            path=str(self.path),
            config="" if config is None else to_toml(config),
            step=0,
            tokens=0,
            max_steps=self.status.max_steps or (config.train.max_steps if config else 0) or 0,
            steps_per_epoch=0.0,
            tokens_per_step=per_step,
            n_parameters=self.status.n_parameters,
            flops_per_token=0.0,
            context_length=config.model.context_length if config else 0,
            vocab_size=0,
            train_tokens=0,
            val_tokens=0,
            bytes_per_token=0.0,
            device="",
            device_name=self.status.device,
            precision="",
            threads=0,
            peak_flops=0.0,
            peak_source="",
            pid=self.status.pid,
            host=self.status.host,
        )


class _Source:
    """One of the two files: a piece of it at a time, as events. None stands in `waiting` for the
    line by which the steps say that the run went back to a checkpoint."""

    def __init__(self, path: Path) -> None:
        self.tail = JsonlTail(path)
        self.waiting: deque[Event | None] = deque()
        self.at_end = False
        self._pieces: Iterator[list[dict[str, Any]]] | None = None

    @property
    def done(self) -> bool:
        return self.at_end and not self.waiting

    def read(self) -> None:
        """Read the next piece, unless something of the last one waits still."""
        if self.waiting:
            return
        self._pieces = self._pieces or self.tail.pieces(PIECE)
        records = next(self._pieces, None)
        for record in records or ():
            if type(record.get("resumed")) is int and "event" not in record:
                self.waiting.append(None)
            elif (event := event_of(record)) is not None:
                self.waiting.append(event)
        self.at_end = records is None or self.tail.offset >= self.tail.size
        if self.at_end:
            self._pieces = None  # closes the file


def _goes_back(event: Event | None) -> bool:
    return isinstance(event, RolledBack) or (isinstance(event, RunStarted) and event.resumed)


def event_of(record: dict[str, Any]) -> Event | None:
    """The event that a line of a run's files tells; None for a line that tells none.

    Unlike `events.from_record` it believes nothing: each field has the type that it must have.
    """
    name = record.get("event", "step_done")
    if name == "step_done":
        return _step_of(record)
    kind = Event.kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        return None
    values = {}
    for field in _fields(kind):
        if field.name not in record:
            if field.default is MISSING and field.name != "time":
                return None
            continue
        value = values[field.name] = record[field.name]
        if not _TYPES.get(str(field.type), _nothing)(value):
            return None
    values.setdefault("time", 0.0)
    return kind(**values)


def _step_of(record: dict[str, Any]) -> StepDone | None:
    """As `event_of`, for the lines of which there are a million."""
    get = record.get
    step, tokens, loss = get("step"), get("tokens"), get("loss")
    lr, norm, rate = get("lr"), get("grad_norm"), get("tokens_per_second")
    memory, epoch, mfu, at = get("memory_bytes"), get("epoch", 0.0), get("mfu"), get("time", 0.0)
    numbers = float, int
    if not (
        type(loss) in numbers
        and type(lr) in numbers
        and type(norm) in numbers
        and type(rate) in numbers
        and _is_whole(step)
        and _is_whole(tokens)
        and _is_whole(memory)
        and _is_number(epoch)
        and _is_number(at)
        and (mfu is None or _is_number(mfu))
    ):
        return None
    try:
        return StepDone(
            time=at,
            step=step,
            tokens=tokens,
            loss=float(loss),
            lr=float(lr),
            grad_norm=float(norm),
            tokens_per_second=float(rate),
            mfu=mfu,
            memory_bytes=memory,
            epoch=epoch,
            **_router_of(record),
        )
    except OverflowError:  # an integer beyond any float
        return None


ROUTER = ("router_balance", "expert_busiest", "expert_idlest", "router_entropy")


def _router_of(record: dict[str, Any]) -> dict[str, float]:
    """What a mixture's routers did; nothing for the dense, or where one of the numbers is none."""
    if "router_balance" not in record:
        return {}
    values = {name: record.get(name) for name in ROUTER}
    return values if all(map(_is_number, values.values())) else {}  # type: ignore[return-value]


@cache
def _fields(kind: type[Event]) -> tuple[Field[Any], ...]:
    return fields(kind)


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**53)


def _nothing(value: Any) -> bool:
    return False


_TYPES = {
    "str": lambda value: type(value) is str,
    "bool": lambda value: type(value) is bool,
    "int": _is_whole,
    "int | None": lambda value: value is None or _is_whole(value),
    "float": _is_number,
    "float | None": lambda value: value is None or _is_number(value),
}
"""What a field of each type takes, by the type as `engine.events` writes it."""
