"""Registers files and folders as a corpus, by reference: nothing is copied.

Writes `corpus/added.toml`, and nothing else there: what people wrote in `registry.toml` stays
theirs.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import tomli_w

from engine import atomic
from engine.corpora.digest import Progress, corpus_digest, source_stamps
from engine.corpora.registry import ADDED, CorpusEntry, find_corpus, read_entries, read_registry
from engine.corpora.sources import is_text, pieces, source_files
from engine.errors import CorpusError
from engine.lab import Lab

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
WHOLE = 64 << 20  # bytes up to which an addition is read to its end at once


def add(
    lab: Lab,
    name: str,
    paths: Sequence[str | Path],
    *,
    field: str = "text",
    licence: str = "",
    source: str = "",
    title: str = "",
    replace: bool = False,
    progress: Progress | None = None,
) -> CorpusEntry:
    """Register `paths` (text, .jsonl, .parquet, .gz, or folders of them) as corpus `name`.

    The beginning of every corpus is read to refuse what is not text, all of it up to 64 MB.
    Raises CorpusError when the name is not one, is taken (unless `replace` and the lab's own), or
    a path is absent, binary or empty, or the lab cannot be written.
    """
    if not NAME.fullmatch(name):
        raise CorpusError(
            f"'{name}' cannot be a corpus's name",
            "letters, digits, dot, dash, underscore; a letter or digit first; at most 100",
        )
    taken = read_entries(lab, only=name).get(name)
    if taken is not None and not (replace and taken.own):
        raise CorpusError(
            f"there is a corpus '{name}' already",
            "choose another name, or pass --replace" if taken.own else "choose another name",
        )
    if not paths:
        raise CorpusError(f"corpus '{name}' needs a file or a folder")
    entry = CorpusEntry(
        name,
        "files",
        title=title,
        source=source,
        licence=licence,
        field=field,
        paths=tuple(_existing(path) for path in paths),
        available=True,
        own=True,
    )
    size = _check(entry)
    digest = corpus_digest(lab, entry, progress)
    values = {
        "title": title,
        "kind": "files",
        "source": source,
        "licence": licence,
        "field": field if field != "text" else "",
        "sha256": digest,
    }
    table = {key: value for key, value in values.items() if value}
    table |= {"bytes": size, "paths": [str(path) for path in entry.paths]}
    _write(lab, read_registry(lab.corpus / ADDED) | {name: table})
    return find_corpus(lab, name)


def remove(lab: Lab, name: str) -> None:
    """Forget a corpus that was added, and delete its prepared shards; its files stay.

    Raises CorpusError when it is unknown or was not added.
    """
    find_corpus(lab, name)
    tables = read_registry(lab.corpus / ADDED)
    if name not in tables:
        raise CorpusError(f"corpus '{name}' was not added to this lab", "only those are removed")
    del tables[name]
    _write(lab, tables)
    pattern = re.compile(re.escape(name) + r"-[a-z0-9]+(-\d+)?-[0-9a-f]{12}")
    for folder in (lab.corpus / "prepared", lab.corpus / "prepared" / "tokenizers"):
        for path in folder.glob("*") if folder.is_dir() else ():
            if pattern.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)


def _existing(path: str | Path) -> Path:
    absolute = Path(path).expanduser().absolute()
    if not absolute.exists():
        raise CorpusError(f"'{path}' is not there", "give a file or a folder")
    return absolute


def _check(entry: CorpusEntry) -> int:
    """Refuse what is not text; the bytes of what is."""
    files = source_files(entry)
    try:
        if not any(is_text(file.path) for file in files):
            one = entry.paths[0]
            what = "is binary" if one.is_file() and one.stat().st_size else "holds no text"
            raise CorpusError(f"'{one}' {what}", "a corpus is UTF-8 text, JSON lines or Parquet")
    except OSError as error:
        raise CorpusError(f"cannot read '{error.filename}': {error.strerror}") from None
    read = 0

    def on_bytes(count: int) -> None:
        nonlocal read
        read += count

    for _ in pieces(entry, on_bytes):
        if read > WHOLE:
            break
    return sum(size for size, _, _ in source_stamps(entry).values())


def _write(lab: Lab, tables: dict) -> None:
    try:
        lab.corpus.mkdir(parents=True, exist_ok=True)
        text = "# Written by `tui-lab corpus add`; entries of your own go in registry.toml.\n\n"
        atomic.write_text(lab.corpus / ADDED, text + tomli_w.dumps(tables))
    except OSError as error:
        raise CorpusError(
            f"cannot write '{lab.corpus / ADDED}': {error.strerror}",
            "make the folder writable, or work in another lab (--lab DIR)",
        ) from error
