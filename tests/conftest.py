"""Fixtures that many tests share: labs on disk, and corpora small enough to train on in a test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.lab import Lab

# Tests run two at a time on two cores: one torch thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

WORDS = "the cat sat on the mat and the dog lay by the fire while rain fell on the roof".split()


def small_text(lines: int = 400, seed: int = 7) -> str:
    """Sentences from a small grammar: learnable, and different in every line."""
    import random

    rng = random.Random(seed)
    return "".join(
        " ".join(rng.choice(WORDS) for _ in range(rng.randint(4, 12))) + ".\n" for _ in range(lines)
    )


@pytest.fixture(autouse=True, scope="session")
def no_user_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Neither the developer's settings and caches are read, nor are they written."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CACHE", "CONFIG"):
            patch.setenv(f"TUI_LAB_{name}_DIR", str(tmp_path_factory.mktemp(name.lower())))
        patch.delenv("TUI_LAB_DIR", raising=False)
        yield


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """An empty lab."""
    return Lab.init(tmp_path / "lab")


@pytest.fixture
def small_lab(lab: Lab) -> Lab:
    """A lab with a corpus `small` of about 20 kB."""
    from engine.corpora import add

    source = lab.root / "small.txt"
    source.write_text(small_text())
    add(lab, "small", [source])
    return lab
