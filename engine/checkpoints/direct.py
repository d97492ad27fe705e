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
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

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


def contents(path: Path, at_once: int) -> Iterator[memoryview]:
    """The bytes of the file in order, at most `at_once` (whole pages) at a time; each piece is
    overwritten by the next. Raises OSError. Where it can the disk itself is read, and not what the
    cache remembers."""
    buffer = memoryview(memory(at_once))
    with open(path, "rb", buffering=0) as file:
        left = os.fstat(file.fileno()).st_size
        with _past_the_cache(file.fileno()) if left >= WORTH else nullcontext():
            # Past the cache whole pages are asked for; the end of the file cuts the last one, and
            # nothing may be asked for behind it.
            while left > 0 and (count := file.readinto(buffer)):
                left -= count
                yield buffer[:count]


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
