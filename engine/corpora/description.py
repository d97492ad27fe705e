"""What a corpus looks like: counts and frequencies, and its text cut as the model sees it.

Streams: never holds more than a block of text and one counter a token.
"""

from __future__ import annotations

from array import array
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from engine.corpora.digest import Progress
from engine.corpora.preparation import encoded, find_prepared, prepare, separator_of
from engine.corpora.registry import CorpusEntry, find_corpus
from engine.corpora.sources import pieces
from engine.errors import CorpusError
from engine.lab import Lab

if TYPE_CHECKING:
    from engine.tokenizers import Tokenizer

FREQUENT = 20
COUNTED = 1 << 22  # tokens counted at once


@dataclass(frozen=True)
class CorpusStatistics:
    """Counts over a whole corpus; lengths of documents in characters.

    Everything from `tokenizer` on needs one and is None or empty without.
    `frequent`: (token id, its text, how often), most frequent first. `vocab_used`: how many ids
    occur. `bytes_per_token`: UTF-8 bytes of text over tokens, separators included in the latter.
    """

    corpus: str
    documents: int
    bytes: int
    characters: int
    lines: int
    words: int
    distinct_characters: int
    shortest: int
    median: int
    longest: int
    frequent_characters: tuple[tuple[str, int], ...]
    tokenizer: str = ""
    vocab_size: int | None = None
    tokens: int | None = None
    bytes_per_token: float | None = None
    vocab_used: int | None = None
    frequent: tuple[tuple[int, str, int], ...] = ()


class PreviewToken(NamedTuple):
    """One token: its id, and its text with bytes of unfinished characters as \\xNN."""

    token: int
    text: str


def statistics(
    lab: Lab, corpus: str, tokenizer: Tokenizer | None = None, progress: Progress | None = None
) -> CorpusStatistics:
    """Count `corpus`; with a tokenizer it is prepared first (and stays so for training).

    Words are runs between white space. Raises CorpusError as `documents` does.
    """
    entry = find_corpus(lab, corpus)
    done = 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count

    lengths = array("q")
    characters: Counter[str] = Counter()
    size = words = lines = length = 0
    in_word = False
    for piece in pieces(entry, on_bytes):
        text = piece.text
        characters.update(text)
        size += len(text.encode())
        words += len(text.split()) - (in_word and not text[:1].isspace())
        lines += text.count("\n")
        length += len(text)
        in_word = not piece.ends and not text[-1:].isspace()
        if piece.ends:
            lines += not text.endswith("\n")
            lengths.append(length)
            length = 0
        if progress:
            progress("counting", done, max(entry.bytes or 0, done))
    values = {
        "corpus": corpus,
        "documents": len(lengths),
        "bytes": size,
        "characters": sum(lengths),
        "lines": lines,
        "words": words,
        "distinct_characters": len(characters),
        "shortest": min(lengths),
        "median": int(np.median(lengths)),
        "longest": max(lengths),
        "frequent_characters": tuple(characters.most_common(FREQUENT)),
    }
    if tokenizer is not None:
        values |= _token_values(lab, corpus, tokenizer, progress)
    return CorpusStatistics(**values)


def _token_values(
    lab: Lab, corpus: str, tokenizer: Tokenizer, progress: Progress | None
) -> dict[str, object]:
    prepared = prepare(lab, corpus, tokenizer, progress=progress)
    stream = prepared.peek()
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    for start in range(0, len(stream), COUNTED):
        tokens = stream.slice(start, start + COUNTED)
        counts += np.bincount(tokens, minlength=tokenizer.vocab_size)
        if progress:
            progress("counting tokens", start + len(tokens), len(stream))
    top = np.argsort(-counts, kind="stable")[:FREQUENT]
    return {
        "tokenizer": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "tokens": len(stream),
        "bytes_per_token": prepared.n_bytes / len(stream),
        "vocab_used": int(np.count_nonzero(counts)),
        "frequent": tuple(
            (int(token), tokenizer.token_text(int(token)), int(counts[token]))
            for token in top
            if counts[token]
        ),
    }


def preview(
    lab: Lab, corpus: str, tokenizer: Tokenizer, start: int = 0, count: int = 200
) -> list[PreviewToken]:
    """Tokens `start` to `start + count` of the corpus as training sees them.

    Read from the prepared shards where they are; otherwise the corpus is encoded up to there and
    nothing is written. Raises CorpusError when `start` is beyond the end.
    """
    stop = start + count
    prepared = find_prepared(lab, corpus, tokenizer)
    if prepared is not None:
        total, tokens = prepared.n_tokens, prepared.peek().slice(start, stop)
    else:
        tokens = _first_tokens(find_corpus(lab, corpus), tokenizer, stop)
        total, tokens = len(tokens), tokens[max(start, 0) : stop]
    if not 0 <= start < total:
        raise CorpusError(f"corpus '{corpus}' has no token {start}", f"it has {total}, from 0")
    return [PreviewToken(token, tokenizer.token_text(token)) for token in tokens.tolist()]


def _first_tokens(entry: CorpusEntry, tokenizer: Tokenizer, stop: int) -> np.ndarray:
    """The first `stop` tokens, separators included, or a few more, or all if there are less."""
    found: list[np.ndarray] = []
    size = 0
    with closing(encoded(entry, tokenizer)) as lists:
        for parts in lists:
            for part, tokens in parts:
                if part.begins and found:
                    found.append(separator_of(tokenizer))
                found.append(tokens)
            size += sum(len(tokens) for _, tokens in parts)
            if size >= stop:
                break
    return np.concatenate(found)
