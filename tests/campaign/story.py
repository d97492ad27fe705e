"""What a run's folder tells: all of it that must not depend on how the run came to its end.

Read from the files alone, without torch; two runs that made the same steps have equal stories.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.checkpoints import newest_verified
from engine.checkpoints.find import RUN_FILE
from engine.checkpoints.layout import MODEL, STATE, TRAINING
from engine.metrics import EVENTS_FILE, METRICS_FILE, read_metrics
from engine.status import STATUS_FILE

COMPARED = ("step", "tokens", "loss", "val_loss", "lr", "grad_norm", "epoch")
"""Of the metrics by step: everything but rates, memory and times."""


def story(path: Path) -> dict[str, Any]:
    """The newest checkpoint's bytes and place in the data, and the metrics of every step."""
    info, _ = newest_verified(path)
    if info is None:
        return {}
    state = json.loads((info.path / STATE).read_text())
    state["progress"].pop("seconds")
    metrics = read_metrics(path)
    return {
        "newest step": info.step,
        "weights": (info.path / MODEL).read_bytes(),
        "moments and random state": (info.path / TRAINING).read_bytes(),
        "progress and place in the data": state,
        **{f"{name} by step": metrics[name].tobytes() for name in COMPARED},
    }


def differing(told: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """What of two stories is not the same to the last bit."""
    return [name for name in expected if told.get(name) != expected[name]]


def unreadable(path: Path, torn: int = 0) -> list[str]:
    """What of a run's files cannot be read. Each kill may have torn one line of a log, no more."""
    problems = []
    for name in (RUN_FILE, STATUS_FILE):
        try:
            json.loads((path / name).read_text())
        except FileNotFoundError:
            pass
        except ValueError:
            problems.append(f"{name} is not JSON")
    for name in (METRICS_FILE, EVENTS_FILE):
        lines = (path / name).read_bytes().split(b"\n") if (path / name).exists() else []
        bad = sum(not _is_json(line) for line in lines if line)
        if bad > torn:
            problems.append(f"{name}: {bad} lines cannot be read")
    steps = read_metrics(path)["step"].tolist()
    if steps != sorted(set(steps)):
        problems.append(f"{METRICS_FILE}: steps out of order: {steps}")
    return problems


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
