"""How far a run has come. No torch: a checkpoint's `state.json` holds exactly this."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from engine.errors import CheckpointError


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
    def from_dict(cls, values: Any) -> Progress:
        """What `to_dict` gave. Raises CheckpointError for anything that it cannot have given."""
        if not isinstance(values, dict):
            raise CheckpointError("the saved progress is no object", "the checkpoint is damaged")
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        for name, value in known.items():
            whole = type(value) is int and 0 <= value < 2**63
            number = type(value) is float or whole
            absent = value is None and name in _MAY_BE_NONE
            if not (absent or (number if name in _REAL else whole)):
                raise CheckpointError(
                    f"the saved progress says {name} = {str(value)[:40]}",
                    "the checkpoint is damaged",
                )
        return cls(**known)


_REAL = ("lr_scale", "seconds", "val_loss", "best_val_loss")
_MAY_BE_NONE = ("val_loss", "best_val_loss", "best_step", "rollback_to")
