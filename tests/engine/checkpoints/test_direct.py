"""Writing and reading past the page cache: the same bytes as through it, whatever their shape."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.checkpoints import direct
from engine.checkpoints.tensors import PAGE

LARGE = direct.WORTH
SIZES = [1, 7, PAGE, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE + PAGE + 13]


def block(size: int) -> memoryview:
    """Random bytes that begin at a page."""
    memory = memoryview(direct.memory(size))
    memory[:] = np.random.default_rng(size).bytes(size)
    return memory


def write(path: Path, *pieces: memoryview | bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for piece in pieces:
            direct.write_all(descriptor, piece)
    finally:
        os.close(descriptor)


def read(path: Path) -> bytes:
    """The file in pieces that are no part of its size."""
    return b"".join(bytes(piece) for piece in direct.contents(path, 3 * PAGE))


@pytest.mark.parametrize("size", SIZES)
def test_what_is_written_is_what_is_read(tmp_path: Path, size: int) -> None:
    header, data = bytes(PAGE), block(size)
    write(tmp_path / "file", header, data)
    assert (tmp_path / "file").read_bytes() == header + bytes(data)
    assert read(tmp_path / "file") == header + bytes(data)


def test_memory_and_positions_that_no_disk_takes_go_through_the_cache(tmp_path: Path) -> None:
    data = block(2 * LARGE)
    write(tmp_path / "file", b"odd", data[5:])
    assert (tmp_path / "file").read_bytes() == b"odd" + bytes(data[5:])


@pytest.mark.parametrize("taken", [512, PAGE, LARGE])
def test_a_disk_that_takes_a_part_gets_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    """512 bytes leave the file where no page begins: the rest goes through the cache."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:taken]))
    data = block(2 * LARGE + 5)
    write(tmp_path / "file", data)
    monkeypatch.undo()
    assert (tmp_path / "file").read_bytes() == bytes(data)


def failing(code: int) -> Callable[..., int]:
    def fail(*arguments: Any) -> int:
        raise OSError(code, os.strerror(code))

    return fail


def test_a_full_disk_is_no_reason_to_try_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "write", failing(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "file", block(LARGE))


def test_a_file_system_without_it_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, fail = direct.fcntl.fcntl, failing(errno.EINVAL)

    def refuse(descriptor: int, command: int, *rest: int) -> int:
        return (fail if command == direct.fcntl.F_SETFL else real)(descriptor, command, *rest)

    monkeypatch.setattr(direct.fcntl, "fcntl", refuse)
    data = block(LARGE + 1)
    write(tmp_path / "file", data)
    assert read(tmp_path / "file") == bytes(data)


def test_the_cache_is_passed_by_where_the_file_system_lets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else everything above would hold, and a save would cost what it did."""
    flags: list[int] = []
    real = os.write

    def note(descriptor: int, data: Any) -> int:
        flags.append(direct.fcntl.fcntl(descriptor, direct.fcntl.F_GETFL) & direct._DIRECT)
        return real(descriptor, data)

    descriptor = os.open(tmp_path / "probe", os.O_WRONLY | os.O_CREAT)
    with direct._past_the_cache(descriptor) as possible:
        pass
    os.close(descriptor)
    monkeypatch.setattr(os, "write", note)
    write(tmp_path / "file", block(LARGE + 1))
    assert bool(flags[0]) == possible and not flags[-1]
