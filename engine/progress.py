"""How far a run has come. No torch: a checkpoint's `state.json` holds exactly this."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass
class Progress:
    """What a resumed run must know again, beside weights, moments, data order and random state."""

    step: int = 0  # optimiser steps done
    tokens: int = 0  # tokens trained on
    lr_scale: float = 1.0  # factor on the schedule, set by hand
    seconds: float = 0.0  # spent in steps, over all processes of the run
    val_loss: float | None = None
    best_val_loss: float | None = None
    best_step: int | None = None
    rollbacks: int = 0  # in a row, to the checkpoint of step `rollback_to`
    rollback_to: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progress:
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})
