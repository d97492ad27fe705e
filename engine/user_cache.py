"""Small facts that were measured once and are kept for later processes: one JSON file a kind, in
the user's cache directory.

Nothing in a cache is trusted: what is absent, spoilt, or larger than it could be counts as empty,
and whoever reads a value judges it. No torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine import machine
from engine.atomic import write_json
from engine.plain_file import read_plain

MOST = 1 << 20
"""Bytes of a file that are read: hundreds of times what one ever holds."""


def path(kind: str) -> Path:
    return machine.cache_dir() / f"{kind}.json"


def read(kind: str) -> dict[str, Any]:
    """Key -> value as JSON has it; empty where there is nothing of use."""
    try:
        found = json.loads(read_plain(path(kind), MOST))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def keep(kind: str, key: str, value: Any) -> bool:
    """Keep `value` beside what others have kept; False where the cache cannot be written."""
    try:
        path(kind).parent.mkdir(parents=True, exist_ok=True)
        write_json(path(kind), read(kind) | {key: value})
    except OSError:
        return False
    return True


def drop(kind: str, keys: list[str]) -> None:
    """Forget these keys. Raises OSError where the cache cannot be written."""
    kept = read(kind)
    if not kept.keys().isdisjoint(keys):
        write_json(path(kind), {key: kept[key] for key in kept if key not in keys})
