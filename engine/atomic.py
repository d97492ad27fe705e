"""Small files that are either the old one or the new one, never half of it."""

from __future__ import annotations

import errno
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


def write_bytes(path: Path, data: bytes, *, new: bool = False) -> None:
    """Write `data` to a temporary name beside `path`, flush it, and put it in place.

    `new`: nothing is replaced; FileExistsError is raised when something has that name by then.
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
        if new:
            _put_new(temporary, path)
        else:
            os.replace(temporary, path)
    except BaseException:
        discard(temporary)
        raise
    sync_directory(path.parent)


def _put_new(temporary: Path, path: Path) -> None:
    """Rename that replaces nothing: a second name is made where there is none, in one step."""
    try:
        os.link(temporary, path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        # A file system without hard links (FAT): as near as can be.
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.rename(temporary, path)
    else:
        temporary.unlink()


def write_text(path: Path, text: str, *, new: bool = False) -> None:
    write_bytes(path, text.encode(), new=new)


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
