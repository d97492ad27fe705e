"""Real text that every Python has, and one tokenizer of each kind made from it."""

from __future__ import annotations

import textwrap
from pydoc_data import topics

import pytest

from engine.tokenizers import KINDS, Tokenizer, build

# Beyond the documentation's characters, so that char can encode what the tests write.
EXTRA = "Zürich, naïve café — 東京 😀 \t\r\n’"


@pytest.fixture(scope="session")
def prose() -> str:
    """About 100 kB of English with code in it."""
    return "\n\n".join(topics.topics[name] for name in sorted(topics.topics))[:100_000]


@pytest.fixture(scope="session")
def code() -> str:
    from pathlib import Path

    return Path(textwrap.__file__).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def tokenizers(prose: str) -> dict[str, Tokenizer]:
    return {kind: build(kind, lambda: [prose, EXTRA], 600) for kind in KINDS}


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tokenizers: dict[str, Tokenizer]) -> Tokenizer:
    return tokenizers[request.param]
