"""What a corpus holds, as one hash: the same text gives the same digest wherever it lies.

Hashing a large corpus takes a while, so that the hash of each file is remembered beside its size
and times and computed again only when those have changed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from engine import atomic
from engine.corpora import interpreter
from engine.corpora.registry import CorpusEntry
from engine.corpora.sources import BLOCK, require_available, source_files
from engine.errors import CorpusError
from engine.lab import Lab

Progress = Callable[[str, int, int], None]
Stamp = tuple[int, int, int]

TICK = 20_000_000
"""Nanoseconds by which the times of two writes may differ and still be recorded as equal."""


def corpus_digest(lab: Lab, entry: CorpusEntry, progress: Progress | None = None) -> str:
    """SHA-256 (hex) over the files of the corpus in order, and the field they are read by.

    Raises CorpusError when a file cannot be read.
    """
    require_available(entry)
    whole = hashlib.sha256(f"{entry.kind}\0{entry.field}\0".encode())
    if entry.kind == "python-docs":
        for text in interpreter.help_topics():
            whole.update(hashlib.sha256(text.encode()).digest())
        return whole.hexdigest()
    remembered = _Memory(lab.corpus / "prepared" / "digests.json")
    stamps = source_stamps(entry)
    total = sum(size for size, _, _ in stamps.values())
    done = 0
    for path, stamp in stamps.items():
        digest = remembered.get(path, stamp)
        if digest is None:
            digest = file_digest(path, progress, done, total)
            remembered.put(path, stamp, digest)
        done += stamp[0]
        whole.update(digest.encode())
    remembered.save()
    return whole.hexdigest()


def source_stamps(entry: CorpusEntry) -> dict[Path, Stamp]:
    """Size and times (ns, of content and of inode) of each source file: equal, so unchanged.

    A file that was written to just now is waited for: until the clock has moved on, another write
    would leave the same times.
    """
    stamps = _stamps(entry)
    age = time.time_ns() - max((changed for *_, changed in stamps.values()), default=0)
    if 0 <= age < TICK:
        time.sleep((TICK - age) / 1e9)
        stamps = _stamps(entry)
    return stamps


def _stamps(entry: CorpusEntry) -> dict[Path, Stamp]:
    stamps = {}
    for source in source_files(entry):
        try:
            stat = source.path.stat()
        except OSError as error:
            raise CorpusError(f"cannot read '{source.path}': {error.strerror}") from None
        stamps[source.path] = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return stamps


def file_digest(path: Path, progress: Progress | None = None, done: int = 0, total: int = 0) -> str:
    """SHA-256 (hex) of the file. Raises CorpusError when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(4 * BLOCK):
                digest.update(block)
                done += len(block)
                if progress:
                    progress("reading", done, max(total, done))
    except OSError as error:
        raise CorpusError(f"cannot read '{path}': {error.strerror}") from None
    return digest.hexdigest()


class _Memory:
    """Hashes by path and stamp, in one JSON file; a lost or broken one costs time and no more."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = False
        try:
            values = json.loads(path.read_text())
            self._known = values if isinstance(values, dict) else {}
        except (OSError, ValueError):
            self._known = {}

    def get(self, path: Path, stamp: Stamp) -> str | None:
        entry = self._known.get(str(path))
        if not isinstance(entry, list) or tuple(entry[:-1]) != stamp:
            return None
        digest = entry[-1]
        return digest if isinstance(digest, str) and len(digest) == 64 else None

    def put(self, path: Path, stamp: Stamp, digest: str) -> None:
        self._known[str(path)] = [*stamp, digest]
        self._changed = True

    def save(self) -> None:
        if not self._changed:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_json(self._path, self._known)
        except OSError:
            return  # a lab that cannot be written is refused where writing matters
