"""A run of a few dozen steps in the calling thread, for rows that put faults into the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import control, events
from engine.config import Config
from engine.errors import EngineError
from engine.lab import Lab
from engine.session import resume_training, run_training
from tests.campaign.processes import CORPUS

BASE = {
    "model.n_layer": 2,
    "model.n_head": 2,
    "model.n_embd": 16,
    "model.context_length": 16,
    "model.dropout": 0.1,
    "data.corpus": CORPUS,
    "data.tokenizer": "char",
    "optimizer.lr": 1e-2,
    "schedule.warmup_steps": 2,
    "train.batch_size": 4,
    "train.max_steps": 10,
    "train.eval_every": 4,
    "train.eval_tokens": 64,
    "train.threads": 1,
    "train.device": "cpu",
    "train.precision": "float32",
    "sample.every": 5,
    "sample.max_tokens": 2,
    "sample.prompts": ["the "],
    "save.every": 3,
}


@dataclass
class Tiny:
    """One run; what it said, and how it ended: `finished`, or `error`."""

    lab: Lab
    name: str
    listen: Callable[[events.Event], None] = lambda event: None
    said: list[events.Event] = field(default_factory=list)
    inbox: control.Inbox = field(default_factory=control.Inbox)
    finished: events.Finished | None = None
    error: BaseException | None = None

    @property
    def path(self) -> Path:
        return self.lab.checkpoints / self.name

    def emit(self, event: events.Event) -> None:
        self.said.append(event)
        self.listen(event)

    def train(self, **changes: Any) -> Tiny:
        values = BASE | {key.replace("__", "."): value for key, value in changes.items()}
        config = Config().with_values(values)
        return self._do(run_training, self.lab, config, name=self.name)

    def resume(self) -> Tiny:
        return self._do(resume_training, self.lab, self.name)

    def _do(self, work: Callable[..., events.Finished], *arguments: Any, **named: Any) -> Tiny:
        self.finished = self.error = None
        try:
            self.finished = work(*arguments, emit=self.emit, inbox=self.inbox, **named)
        except (EngineError, RuntimeError, MemoryError) as error:
            self.error = error
        return self

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.said if isinstance(event, kind)]

    def alerts(self) -> list[str]:
        return [alert.title for alert in self.of(events.Alert)]
