"""Turns a corpus into token shards, once for each content and tokenizer, in parallel.

Memory stays flat however large the corpus is: text is read in blocks, cut where the tokenizer says
that a cut changes nothing, encoded by a few threads (tiktoken releases the interpreter's lock) and
written in order, so that the result does not depend on how many there are. Which folder can be
trusted, and how a new one takes its place, is the store's to know.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine import machine
from engine.corpora import interpreter, store
from engine.corpora.digest import Progress, corpus_digest, source_stamps
from engine.corpora.registry import CorpusEntry, find_corpus
from engine.corpora.shards import FORMAT, SHARD_TOKENS, Prepared, ShardWriter, open_prepared
from engine.corpora.sources import OnBytes, Piece, pieces
from engine.errors import CorpusError
from engine.lab import Lab

if TYPE_CHECKING:
    from engine.tokenizers import Tokenizer

CHUNK = 1 << 20  # characters encoded at once: long enough to share overheads, short enough to hold
TIDY_AFTER = 8  # chunks


def prepared_path(lab: Lab, corpus: str, tokenizer: Tokenizer, content: str) -> Path:
    """Where the shards of `corpus` with digest `content` belong."""
    key = prepared_digest(tokenizer, content)[:12]
    return lab.corpus / "prepared" / f"{corpus}-{tokenizer.kind}-{key}"


def find_prepared(lab: Lab, corpus: str, tokenizer: Tokenizer) -> Prepared | None:
    """The shards if they are there and whole; reads (or recalls) the corpus's digest only."""
    content = corpus_digest(lab, find_corpus(lab, corpus))
    try:
        return open_prepared(prepared_path(lab, corpus, tokenizer, content))
    except CorpusError:
        return None


def prepare(
    lab: Lab,
    corpus: str,
    tokenizer: Tokenizer,
    *,
    progress: Progress | None = None,
    workers: int | None = None,
    shard_tokens: int = SHARD_TOKENS,
    check: bool = False,
) -> Prepared:
    """The token shards of `corpus`: those on disk, or new ones if it or the tokenizer changed, or
    if those on disk are damaged.

    Shards that fit memory are compared with their hashes; larger ones only when their times say
    that somebody wrote to them, or if `check` asks for it.

    Documents are separated by the tokenizer's end-of-text token, or by a newline when it has none.
    `progress(what, done, total)` counts source bytes; an exception it raises ends the work and
    leaves nothing behind. `workers`: encoding threads, by default one a core.

    Raises CorpusError for a corpus that is absent, empty, not text, or changed meanwhile, and for a
    lab that cannot be written; TokenizerError when the tokenizer cannot encode the text.
    """
    entry = find_corpus(lab, corpus)
    stamps = source_stamps(entry)
    content = corpus_digest(lab, entry, progress)
    path = prepared_path(lab, corpus, tokenizer, content)
    kept = store.trusted(path, progress, check)
    if kept is not None:
        return kept
    facts = {
        "corpus": corpus,
        "corpus_digest": content,
        "tokenizer": tokenizer.kind,
        "tokenizer_digest": tokenizer.digest,
        "digest": prepared_digest(tokenizer, content),
    }
    try:
        with store.building(path) as build:
            dtype = "<u2" if tokenizer.vocab_size <= 65536 else "<u4"
            with ShardWriter(build, dtype, shard_tokens) as writer:
                n_bytes = _write_all(entry, tokenizer, writer, progress, workers or _cores())
                if source_stamps(entry) != stamps:
                    raise CorpusError(
                        f"corpus '{corpus}' was changed while it was being prepared", "try again"
                    )
                writer.close(facts | {"n_bytes": n_bytes})
            return store.put_in_place(build, path, check)
    except OSError as error:
        raise CorpusError(
            f"cannot write prepared corpus in '{path.parent}': {error.strerror or error}",
            "make room on the disk"
            if error.errno == errno.ENOSPC
            else "make the folder writable, or work in another lab (--lab DIR)",
        ) from error


def prepared_digest(tokenizer: Tokenizer, content: str) -> str:
    """What `Prepared.digest` is for a corpus whose digest is `content`: the tokens' identity."""
    return hashlib.sha256(f"{FORMAT}\0{content}\0{tokenizer.digest}".encode()).hexdigest()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Part:
    """Text to encode; `begins`: a document begins with it."""

    text: str
    begins: bool


def encoded(
    entry: CorpusEntry, tokenizer: Tokenizer, on_bytes: OnBytes | None = None, workers: int = 1
) -> Iterator[list[tuple[Part, np.ndarray]]]:
    """Every document's parts with their tokens, in order, some at a time; no separators.

    At most a few lists a worker are held at once; closing the generator ends the workers.
    """
    own = threading.local()

    def begin() -> None:
        """Threads that share one of tiktoken's encoders get in each other's way (0.14): its regular
        expressions are fast for the thread that came first, and may be half as fast for all."""
        own.tokenizer = copy(tokenizer)

    def work(parts: list[Part]) -> list[tuple[Part, np.ndarray]]:
        return [(part, own.tokenizer.encode_array(part.text)) for part in parts]

    waiting: deque[Future[list[tuple[Part, np.ndarray]]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="tokenize", initializer=begin)
    try:
        for parts in _chunks(pieces(entry, on_bytes), tokenizer):
            waiting.append(pool.submit(work, parts))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def separator_of(tokenizer: Tokenizer) -> np.ndarray:
    """What stands between two documents: the end-of-text token, or a newline where there is none.

    Raises TokenizerError when the tokenizer has neither.
    """
    if tokenizer.eot_id is None:
        return tokenizer.encode_array("\n")
    return np.array([tokenizer.eot_id])


def _write_all(
    entry: CorpusEntry,
    tokenizer: Tokenizer,
    writer: ShardWriter,
    progress: Progress | None,
    workers: int,
) -> int:
    """Encode every document into `writer`; the bytes of text, separators that are text included."""
    total = interpreter.docs_bytes() if entry.kind == "python-docs" else 0
    total = total or sum(size for size, _, _ in source_stamps(entry).values())
    done = n_bytes = 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count

    for number, parts in enumerate(encoded(entry, tokenizer, on_bytes, workers), 1):
        if number % TIDY_AFTER == 0:
            machine.return_freed_memory()
        for part, tokens in parts:
            if part.begins:
                if writer.n_documents:
                    writer.write(separator_of(tokenizer))
                    n_bytes += tokenizer.eot_id is None
                writer.begin_document()
            writer.write(tokens)
            n_bytes += len(part.text.encode())
        if progress:
            progress("tokenizing", min(done, total), total)
    if progress:
        progress("tokenizing", total, total)
    return n_bytes


def _chunks(source: Iterable[Piece], tokenizer: Tokenizer) -> Iterator[list[Part]]:
    """Lists of parts of about CHUNK characters; long documents are cut where it is safe."""
    parts: list[Part] = []
    size, held, begins = 0, "", True
    for piece in source:
        held += piece.text
        if piece.ends:
            parts.append(Part(held, begins))
            size, held, begins = size + len(held), "", True
        elif len(held) >= CHUNK and (cut := tokenizer.safe_cut(held, len(held) - 1)):
            parts.append(Part(held[:cut], begins))
            size, held, begins = size + cut, held[cut:], False
        if size >= CHUNK:
            yield parts
            parts, size = [], 0
    if parts:
        yield parts
