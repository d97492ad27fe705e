"""Brings a registered corpus into the lab, from its address or from a file at hand.

The one module that uses the network, and only when it is called. Nothing is put in place before
its SHA-256 is the registry's.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from engine import atomic
from engine.corpora.digest import Progress
from engine.corpora.registry import CorpusEntry, find_corpus
from engine.errors import CorpusError
from engine.lab import Lab

BLOCK = 1 << 18
TIMEOUT = 20.0  # seconds without an answer, or without a byte


def fetch(
    lab: Lab,
    name: str,
    *,
    from_file: str | Path | None = None,
    progress: Progress | None = None,
    timeout: float = TIMEOUT,
) -> CorpusEntry:
    """Put the text of corpus `name` into the lab; one that is there already is left alone.

    `from_file` takes the place of the download. `progress(what, done, total)` counts bytes, total 0
    when unknown; an exception it raises ends the work and leaves nothing behind. Raises CorpusError
    when there is no network, the content is not what the registry states, or on a full disk.
    """
    entry = find_corpus(lab, name)
    if entry.kind in ("python-docs", "python-stdlib", "files"):
        raise CorpusError(f"corpus '{name}' needs no fetching", "it is read where it is")
    if entry.available and from_file is None:
        return entry
    if from_file is None and not entry.url:
        raise CorpusError(
            f"corpus '{name}' has no address", f"run: tui-lab corpus fetch {name} --from FILE"
        )
    if not entry.sha256:
        raise CorpusError(
            f"corpus '{name}' has no sha256 in the registry", "state it: nothing else is trusted"
        )
    target = lab.corpus / entry.file
    try:
        lab.corpus.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{entry.file}.", dir=lab.corpus)
    except OSError as error:
        raise _unwritable(lab.corpus, error) from error
    try:
        with os.fdopen(descriptor, "wb") as out:
            if from_file is not None:
                _copy_file(Path(from_file), entry, out, progress)
            else:
                _download(entry, out, progress, timeout)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, target)
        atomic.sync_directory(lab.corpus)
    except OSError as error:
        raise _unwritable(lab.corpus, error) from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    return find_corpus(lab, name)


def _copy_file(path: Path, entry: CorpusEntry, out: BinaryIO, progress: Progress | None) -> None:
    try:
        source = path.expanduser().open("rb")
        total = path.expanduser().stat().st_size
    except OSError as error:
        raise CorpusError(f"cannot read '{path}': {error.strerror}") from None
    with source:
        found, size = _copy(source, out, "copying", total, progress)
    if found != entry.sha256:
        raise CorpusError(
            f"'{path}' is not the file that '{entry.name}' names: SHA-256 {found}, {size} bytes",
            f"expected {entry.sha256}; to use it all the same: tui-lab corpus add NAME '{path}'",
        )


def _download(entry: CorpusEntry, out: BinaryIO, progress: Progress | None, timeout: float) -> None:
    by_hand = f"with the file at hand: tui-lab corpus fetch {entry.name} --from FILE ({entry.url})"
    if not entry.url.startswith(("https://", "http://")):
        raise CorpusError(f"corpus '{entry.name}': url '{entry.url}' is not http", by_hand)
    request = urllib.request.Request(entry.url, headers={"User-Agent": "tui-lab"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            total = int(answer.headers.get("Content-Length") or 0)
            found, size = _copy(answer, out, "downloading", total, progress)
    except urllib.error.HTTPError as error:
        raise CorpusError(
            f"cannot download '{entry.name}': the server answered {error.code} {error.reason}",
            by_hand,
        ) from None
    except urllib.error.URLError as error:
        raise CorpusError(f"cannot download '{entry.name}': {error.reason}", by_hand) from None
    except (TimeoutError, ConnectionError, HTTPException, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise CorpusError(f"cannot download '{entry.name}': {reason}", by_hand) from None
    if total and size < total:
        raise CorpusError(f"the download of '{entry.name}' broke off at {size} of {total}", by_hand)
    if found != entry.sha256:
        raise CorpusError(
            f"what '{entry.name}' downloaded has SHA-256 {found}, not {entry.sha256}: thrown away",
            by_hand,
        )


def _copy(
    source: BinaryIO, out: BinaryIO, what: str, total: int, progress: Progress | None
) -> tuple[str, int]:
    digest, done = hashlib.sha256(), 0
    while block := source.read(BLOCK):
        out.write(block)
        digest.update(block)
        done += len(block)
        if progress:
            progress(what, done, max(total, done) if total else 0)
    return digest.hexdigest(), done


def _unwritable(folder: Path, error: OSError) -> CorpusError:
    return CorpusError(
        f"cannot write in '{folder}': {error.strerror or error}",
        "make the folder writable, or work in another lab (--lab DIR)",
    )
