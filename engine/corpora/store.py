"""Prepared corpora in their folders: which are still what was written, how a new one gets there.

A folder is built under a temporary name and renamed, so that one under its final name was whole
once. Whether it still is, its sizes say, and its content where that is cheap to read or where the
times of its files tell that somebody wrote to them. Knows nothing of text and tokenizers.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine import atomic
from engine.corpora.digest import Progress
from engine.corpora.shards import MANIFEST, Prepared, open_prepared
from engine.errors import CorpusError
from engine.plain_file import open_to_write

try:
    import fcntl
except ImportError:  # not POSIX
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


def trusted(path: Path, progress: Progress | None = None, check: bool = False) -> Prepared | None:
    """The shards in `path`; None where there are none, or where they are not what was written.

    Those that fit memory are compared with their hashes. Larger ones are only when a file is newer
    than the manifest, or when `check` asks for it.
    """
    try:
        prepared = open_prepared(path)
        suspect, seen = prepared.changed_file(), prepared.last_change()
        prepared.document_starts()
        prepared.tokens()
        unread = not prepared.is_held
        if (check or (suspect and unread)) and prepared.verify(progress):
            return None
        if suspect:
            _renew(path / MANIFEST)
        if prepared.last_change() != seen:
            return None
    except CorpusError:
        return None
    return prepared


def _renew(manifest: Path) -> None:
    """Say by the manifest's time that the files beside it are what it says: a copy's times are in
    any order, and it should be read once, not at each start."""
    try:
        os.utime(manifest)
    except OSError:
        return  # not ours to write: it is read again the next time


@contextmanager
def building(path: Path) -> Iterator[Path]:
    """An empty folder in which what belongs at `path` is made; what is left of it at the end goes.

    Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    build = Path(tempfile.mkdtemp(prefix=temporary_prefix(), dir=path.parent))
    try:
        yield build
    finally:
        shutil.rmtree(build, ignore_errors=True)


def put_in_place(build: Path, path: Path, check: bool = False) -> Prepared:
    """Rename the finished folder; one that another process finished meanwhile is as good, as
    far as `trusted` looks. Raises OSError."""
    atomic.sync_directory(build)
    with _alone(path.parent):
        try:
            build.rename(path)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            kept = trusted(path, check=check)
            if kept is not None:
                return kept
            # Whoever has the damaged files open keeps them, and is told by the next read.
            aside = build.with_name(build.name + "-damaged")
            path.rename(aside)
            build.rename(path)
            shutil.rmtree(aside, ignore_errors=True)
        atomic.sync_directory(path.parent)
        prepared = open_prepared(path)
        if not prepared.is_held:
            prepared.tokens()
        return prepared


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time exchanges folders: none may move away what another just put there."""
    descriptor = open_to_write(folder / LOCK, os.O_RDWR)
    try:
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks: renames are whole all the same
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def temporary_prefix(process: int | None = None) -> str:
    return f".tmp-{socket.gethostname()}-{process or os.getpid()}-"


def _sweep(folder: Path) -> None:
    """Remove what processes of this machine that are gone left half-built."""
    for left in folder.glob(f".tmp-{socket.gethostname()}-*-*"):
        process = left.name.removeprefix(f".tmp-{socket.gethostname()}-").split("-")[0]
        if process.isdigit() and not _alive(int(process)):
            shutil.rmtree(left, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
