"""The benchmarks of data and checkpoints measure what they say, in small."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import background_save, checkpoint_io, preparation, quiet
from benchmarks.background_save import WARM_UP, Recorder
from engine import control


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


def test_every_second_save_is_of_the_bytes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each costs what the steps that it touches take beyond those around; both are told apart."""
    monkeypatch.setattr(quiet, "LIMIT", 2.0)
    inbox = control.Inbox()
    writer = checkpoint_io.BytesAlone(tmp_path / "bytes", 3_000_000)
    recorder = Recorder(6, 4, inbox, writer)
    saved: list[str] = []
    monkeypatch.setattr(recorder, "_real", lambda keeper, at, loss, kind: saved.append(kind))
    keeper = SimpleNamespace(_saver=SimpleNamespace(busy=False))
    monkeypatch.setattr(background_save.time, "perf_counter", lambda: clock[0])
    clock = [0.0]
    while not inbox.holds(control.Stop):
        recorder.save(keeper, None, None, "rolling")
        if writer._thread is not None:
            writer._thread.join()
        # What the writer's steps take longer, and what the keeper's do.
        touching = recorder._touching
        clock[0] += 1.0 if touching is None else 1.5 if touching in recorder.by_writer else 3.0
        if touching is not None and touching < WARM_UP:  # finds its memory first: does not count
            clock[0] += 7.0
    assert (tmp_path / "bytes").stat().st_size == 3_000_000
    assert len(saved) == 6 + WARM_UP
    assert len(recorder.costs()) >= 4
    assert recorder.costs() == pytest.approx([2.0] * len(recorder.costs()))
    assert recorder.costs(by_writer=True) == pytest.approx([0.5] * len(recorder.by_writer))
    assert len(recorder.by_writer) >= 4
