"""What the sections of docs/experiments.md share: the newest result, tables, where and how it was.

Knows the shape of a result; nothing of any one experiment.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def newest(name: str, folder: Path) -> dict[str, Any] | None:
    """The result of that name with the latest date; None when there is none."""
    found = sorted(folder.glob(f"????-??-??-{name}.json"))
    return json.loads(found[-1].read_text()) if found else None


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table whose first column is text and the others numbers."""
    align = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, align, *rows])


def where(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return f"{result['date']}, {result['machine']}, Python {result['python']}, {versions}."


def shape(result: dict[str, Any]) -> str:
    """The settings that both sides share, in a sentence."""
    about = result["settings"]
    tokens = about["model.context_length"] * about["train.batch_size"] * about["train.max_steps"]
    return (
        f"{about['model.n_embd']}×{about['model.n_layer']}×{about['model.n_head']} "
        f"(width, layers, heads), context {about['model.context_length']}, "
        f"batch {about['train.batch_size']}, {about['train.max_steps']:,} steps: "
        f"{tokens / 1e6:.2f} M tokens."
    )
