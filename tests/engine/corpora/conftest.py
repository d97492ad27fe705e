"""A corpus of three documents to prepare, and what must hold after every test of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.corpora import add
from engine.lab import Lab

TEXTS = [
    "The first document.\nIt has two lines.\n",
    "Der zweite: äöü, 12345 and  spaces.\n\n\n  Indented.",
    "third\n",
]


@pytest.fixture
def three(lab: Lab, tmp_path: Path) -> Lab:
    """A lab with corpus `three` of three documents, each well above a chunk once chunks are cut."""
    source = tmp_path / "three.jsonl"
    source.write_text("".join(json.dumps({"text": text * 40}) + "\n" for text in TEXTS))
    add(lab, "three", [source])
    return lab


def left_over(lab: Lab) -> list[str]:
    return [path.name for path in (lab.corpus / "prepared").glob(".tmp-*")]


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    """A worker that outlives its work would go on reading a corpus that nobody wants."""
    yield
    assert not [t for t in threading.enumerate() if t.name.startswith("tokenize")]
