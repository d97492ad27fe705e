"""The benchmarks of data and checkpoints measure what they say, in small."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks import checkpoint_io, preparation


def test_the_text_is_as_long_as_asked_for_and_does_not_repeat(tmp_path: Path) -> None:
    """A text of one paragraph again and again would be encoded from the processor's cache."""
    preparation.write_text(tmp_path / "text", 300_000)
    text = (tmp_path / "text").read_text()
    assert len(text.encode()) >= 300_000
    lines = [line for line in text.splitlines() if len(line) > 40]
    assert len(set(lines)) > 0.7 * len(lines)


def test_both_sides_encode_the_same_text(tmp_path: Path) -> None:
    """One round in processes of their own: every byte of the text on either side."""
    options = Namespace(folder=tmp_path, megabytes=1, rounds=1, sizes=[1], shapes=[])
    found = preparation.measure(options)
    rates = found["rates"][0]
    assert rates["tokenizer"] == "bpe"
    assert rates["per_core"][0] > 0
    names = [ratio["name"] for ratio in found["ratios"]]
    assert "preparing with bpe, bytes a second per core, against tiktoken alone" in names
    (size,) = found["memory"]
    assert size["bytes"] >= 1_000_000
    assert not list(tmp_path.iterdir())


def test_loading_is_compared_with_reading_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_io, "TENSORS", 1)
    options = Namespace(folder=tmp_path, only=["load"], rounds=1)
    found = checkpoint_io.measure(options)
    assert found["loading"]["bytes"] > 3 * 768 * 3072 * 4
    assert [ratio["value"] > 0 for ratio in found["ratios"]] == [True] * 4
    assert [ratio["target"] for ratio in found["ratios"]] == [0.5, None] * 2
    assert not list(tmp_path.iterdir())
