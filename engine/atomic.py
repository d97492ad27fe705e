"""Small files that are either the old one or the new one, never half of it."""

from __future__ import annotations

import json
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)


def sync_directory(path: Path) -> None:
    """Make the names inside `path` durable (POSIX: a rename is safe only after this)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte: a disk that is nearly full, or a signal, may take a part only."""
    rest = memoryview(data)
    while len(rest):
        rest = rest[os.write(descriptor, rest) :]


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to a temporary name beside `path`, flush it, and put it in place.

    The temporary name is this thread's alone; one that a crash has left, or that someone has
    planted, is removed and never followed.
    """
    temporary = path.with_name(f".tmp-{path.name}-{threading.get_native_id()}-{os.getpid()}")
    discard(temporary)
    try:
        descriptor = os.open(temporary, _NEW, 0o666)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        discard(temporary)
        raise
    sync_directory(path.parent)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def discard(path: Path) -> None:
    """Remove whatever has this name, be it a folder, a file or a link (which is not followed).

    Never raises OSError: what cannot be removed is in the way of whoever uses the name next.
    """
    with suppress(OSError):
        path.unlink()
        return
    shutil.rmtree(path, ignore_errors=True)
