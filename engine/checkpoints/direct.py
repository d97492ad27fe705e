"""Large writes and reads past the page cache, where system, file system and memory let them.

Filling fresh pages of the cache takes the processor several times as long as hashing the same
bytes, and training pays for it. Memory that begins at a page, written from a position that does,
goes from there to the disk by itself. Where that cannot be, the same call goes through the cache.
Knows nothing of what is written. No torch.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from engine import atomic
from engine.checkpoints.tensors import PAGE

try:
    import fcntl
except ImportError:  # not POSIX
    fcntl = None  # type: ignore[assignment]

WORTH = 1 << 20
"""Fewer bytes go through the cache."""

_DIRECT = getattr(os, "O_DIRECT", 0)


def memory(size: int) -> mmap.mmap:
    """`size` bytes (at least one) that begin at a page, in large pages where there are some."""
    block = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):
            block.madvise(mmap.MADV_HUGEPAGE)
    return block


def write_all(descriptor: int, data: memoryview | bytes) -> None:
    """Write all of `data` where the file stands. Raises OSError."""
    rest = memoryview(data)
    whole = len(rest) // PAGE * PAGE
    if whole >= WORTH:
        with _past_the_cache(descriptor) as direct:
            while direct and whole:
                try:
                    count = os.write(descriptor, rest[:whole])
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    break  # not this memory, or not from here
                rest, whole = rest[count:], whole - count
                if count % PAGE:
                    break
    atomic.write_all(descriptor, rest)


def holds(path: Path, pieces: list[memoryview | bytes], at_once: int) -> bool:
    """Whether the file is these pieces, byte by byte, read `at_once` bytes at a time. Raises
    OSError. Where it can the disk itself is read, and not what the cache remembers."""
    buffer = memoryview(memory(at_once))
    with open(path, "rb", buffering=0) as file:
        large = sum(len(piece) for piece in pieces) >= WORTH
        with _past_the_cache(file.fileno()) if large else _as_it_is() as direct:
            return all(_next_is(file, piece, buffer, direct) for piece in pieces)


def _next_is(file: BinaryIO, piece: memoryview | bytes, buffer: memoryview, direct: bool) -> bool:
    wanted = np.frombuffer(piece, np.uint8)
    for start in range(0, len(wanted), len(buffer)):
        part = wanted[start : start + len(buffer)]
        # Past the cache whole pages are asked for; the end of the file cuts the last one.
        length = -(-len(part) // PAGE) * PAGE if direct else len(part)
        count = file.readinto(buffer[:length])  # type: ignore[attr-defined]
        if count != len(part) or not _same(np.frombuffer(buffer[:count], np.uint8), part):
            return False
    return True


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two equally long arrays of bytes are the same: eight at a time, then the rest."""
    words = len(a) // 8 * 8
    return np.array_equal(a[:words].view(np.uint64), b[:words].view(np.uint64)) and np.array_equal(
        a[words:], b[words:]
    )


@contextmanager
def _past_the_cache(descriptor: int) -> Iterator[bool]:
    """Whether the file is read and written past the cache meanwhile; it was asked to be."""
    if fcntl is None or not _DIRECT:
        yield False
        return
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | _DIRECT)
    except OSError:  # a file system without
        yield False
        return
    try:
        yield True
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)


@contextmanager
def _as_it_is() -> Iterator[bool]:
    yield False
