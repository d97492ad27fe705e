"""What the engine says: frozen records of plain scalars and strings, sent outward through `emit`.

The trainer calls `emit(event)` and knows nothing of who listens: the run's own files, the app's
worker thread and the headless command line are equal listeners. Every event becomes one JSON
object by `to_record`, and back by `from_record`. A step's record has the metric names alone; every
other record carries its `event` name.
"""

from __future__ import annotations

import re
import time as clock
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

from engine import text


def _elapsed() -> float:
    """Seconds by a clock that nobody sets and that, where there is such a one, counts sleep too."""
    boot = getattr(clock, "CLOCK_BOOTTIME", None)
    return clock.clock_gettime(boot) if boot is not None else clock.monotonic()


_BEGAN = clock.time() - _elapsed()


def now() -> float:
    """Seconds since the epoch by the wall clock as it was set when this process began: somebody
    setting it moves no event of a run before another."""
    return _BEGAN + _elapsed()


@dataclass(frozen=True, kw_only=True)
class Event:
    """`time`: seconds since the epoch, by the clock of the process that trains (see `now`)."""

    name: ClassVar[str] = "event"
    kinds: ClassVar[dict[str, type[Event]]] = {}

    time: float = field(default_factory=now)

    def __init_subclass__(cls) -> None:
        cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
        Event.kinds[cls.name] = cls


Emit = Callable[[Event], None]


@dataclass(frozen=True, kw_only=True)
class Preparing(Event):
    """Work before the first step: `what` is shown as it stands; `total` 0 means not known."""

    what: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """The run's folder exists and the loop is about to begin (or to go on, at `step` > 0)."""

    run: str
    path: str
    config: str  # the resolved configuration as TOML
    step: int
    tokens: int
    max_steps: int
    steps_per_epoch: float
    tokens_per_step: int
    n_parameters: int
    flops_per_token: float
    context_length: int
    vocab_size: int
    train_tokens: int
    val_tokens: int
    bytes_per_token: float
    device: str  # cpu, cuda, mps
    device_name: str
    precision: str  # float32, bfloat16, float16
    threads: int
    peak_flops: float  # 0 when not known
    peak_source: str
    pid: int
    host: str
    resumed: bool = False


@dataclass(frozen=True, kw_only=True)
class Phase(Event):
    """What the loop is doing now: loading, compiling, training, evaluating, sampling, saving."""

    phase: str
    step: int
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class StepDone(Event):
    """A logged optimiser step. `loss` is the mean nats per token of that step's own batch."""

    step: int
    tokens: int
    loss: float
    lr: float
    grad_norm: float
    tokens_per_second: float
    mfu: float | None  # share of the device's peak, 0 to 1; None when no peak is known
    memory_bytes: int
    epoch: float = 0.0
    val_loss: float | None = None
    # Of a mixture of experts; None without.
    router_balance: float | None = None  # the load-balancing loss: n_expert_active when even
    expert_busiest: float | None = None  # load over the even share, in the layer where it is worst
    expert_idlest: float | None = None
    router_entropy: float | None = None  # nats, mean over tokens and layers


@dataclass(frozen=True, kw_only=True)
class DeviceStats(Event):
    """Memory and load, about once a second. Bytes; None where the machine does not tell."""

    used: int
    peak: int
    total: int
    reserved: int | None = None
    host_rss: int = 0
    utilization: float | None = None  # 0 to 100
    temperature: float | None = None  # degrees Celsius
    power: float | None = None  # watts


@dataclass(frozen=True, kw_only=True)
class EvalProgress(Event):
    step: int
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class EvalDone(Event):
    """Mean loss over the validation split. `tokens` counts the targets that were scored."""

    step: int
    tokens: int
    val_loss: float
    perplexity: float
    bits_per_byte: float | None
    best: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TokenGenerated(Event):
    """One token of a sample in the making: `engine.generation.generate.GeneratedToken` has the
    meaning of each field. `text` may be empty inside a multi-byte character."""

    request: str
    index: int
    token: int
    text: str
    probability: float
    alternatives: tuple[tuple[str, float], ...] = ()
    reason: str = ""
    entropy: float = 0.0
    alternative_ids: tuple[int, ...] = ()
    cache_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class SampleDone(Event):
    """`request` is empty for the run's pinned prompts; `reason`: length, stop, eot, cancelled."""

    step: int
    prompt: str
    text: str
    tokens: int
    seconds: float
    request: str = ""
    reason: str = "length"
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved(Event):
    """Said only once the checkpoint is durable. `kind`: rolling, periodic, best, manual, final."""

    step: int
    path: str
    bytes: int
    seconds: float
    kind: str
    val_loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointDeleted(Event):
    step: int
    path: str


@dataclass(frozen=True, kw_only=True)
class ControlApplied(Event):
    """A command took effect at a step boundary; `before` and `after` as they would be read."""

    step: int
    command: str
    before: str
    after: str
    who: str


@dataclass(frozen=True, kw_only=True)
class Paused(Event):
    step: int


@dataclass(frozen=True, kw_only=True)
class Resumed(Event):
    step: int


@dataclass(frozen=True, kw_only=True)
class RolledBack(Event):
    """Weights and moments are again those of the checkpoint of `step`; the steps after it, up to
    `from_step`, are void. The data goes on behind what was seen."""

    step: int
    from_step: int
    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Alert(Event):
    """Something a person should know. `level`: info, warning, error."""

    level: str
    title: str
    hint: str = ""
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """The loop has ended in order. `reason`: completed, stopped, stop file, SIGINT, SIGTERM."""

    run: str
    step: int
    tokens: int
    reason: str
    seconds: float
    checkpoint: str = ""  # the newest one, empty when none was kept
    loss: float | None = None
    val_loss: float | None = None
    best_val_loss: float | None = None
    best_step: int | None = None


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """The loop has ended by an error. `traceback` is empty for errors that explain themselves."""

    step: int
    title: str
    hint: str = ""
    traceback: str = ""
    run: str = ""


def to_record(event: Event) -> dict[str, Any]:
    """The event as a JSON-ready object."""
    record = asdict(event)
    if isinstance(event, StepDone):
        return {key: value for key, value in record.items() if value is not None}
    return {"event": event.name, **record}


def from_record(record: dict[str, Any]) -> Event | None:
    """The event that `record` describes; None for one of a kind this version does not know.

    Fields that a newer version added are ignored; a record that lacks a field raises TypeError.
    """
    name = record.get("event", "step_done" if "step" in record else None)
    kind = Event.kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        return None
    values = {f.name: record[f.name] for f in fields(kind) if f.name in record}
    if kind is StepDone:
        values.setdefault("mfu", None)
    return kind(**values)


def to_json(event: Event) -> str:
    """One line of JSON. NaN and infinities are written as JSON's readers in Python take them."""
    return text.to_json(to_record(event))
