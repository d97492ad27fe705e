"""A kept text is in its file whole, or there is no file; no file is written over."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from engine.errors import EngineError, InputError
from engine.generation.params import SamplingParams
from tui_lab import generation_file
from tui_lab.generations import Generation


@pytest.fixture
def generation() -> Generation:
    return Generation(
        1, "r1", "/x", "micro @ 500", "Once 😀\udc80\r\n", SamplingParams(seed=3), 10.0
    )


def test_it_is_written_as_it_came_and_replaces_nothing(
    tmp_path: Path, generation: Generation
) -> None:
    """Line ends stay; half a surrogate pair, which no file can hold, is replaced."""
    for name in ("a.txt", "a.json"):
        generation_file.write(tmp_path / name, generation)
        with pytest.raises(InputError, match="exists already"):
            generation_file.write(tmp_path / name, generation)
    assert (tmp_path / "a.txt").read_bytes() == "Once 😀?\r\n".encode()
    assert json.loads((tmp_path / "a.json").read_text())["settings"]["seed"] == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.txt"]


def test_a_full_disk_leaves_no_half_of_it(
    tmp_path: Path, generation: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def full(descriptor: int, data: memoryview) -> int:
        if len(data) < 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data[:4])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(EngineError, match="No space"):
        generation_file.write(tmp_path / "a.txt", generation)
    assert not list(tmp_path.iterdir())
