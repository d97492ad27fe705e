"""The tokenizer that belongs to a corpus: trained on its text once, then kept.

Knows which corpora and tokenizers there are, not how a tokenizer is trained.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from engine.corpora.digest import Progress, corpus_digest, source_stamps
from engine.corpora.registry import CorpusEntry, find_corpus
from engine.corpora.sources import pieces
from engine.errors import CorpusError, TokenizerError
from engine.lab import Lab

if TYPE_CHECKING:
    from engine.tokenizers import Tokenizer

SAMPLE = 128 << 20  # characters that merges and word counts are learned from; more changes little


def get_tokenizer(
    lab: Lab, corpus: str, kind: str, vocab_size: int, progress: Progress | None = None
) -> Tokenizer:
    """The tokenizer of `kind` for `corpus`, from the lab's cache or built now and kept.

    char sees the whole corpus; word and bpe learn from its first 128 Mi characters. A lab that
    cannot be written gets a tokenizer that is not kept. Raises CorpusError (also for a corpus that
    changed meanwhile), TokenizerError.
    """
    from engine import tokenizers

    if kind in tokenizers.UNTRAINED or kind not in tokenizers.KINDS:
        return tokenizers.build(kind, lambda: (), vocab_size, lab)
    entry = find_corpus(lab, corpus)
    stamps = source_stamps(entry)
    path = _path(lab, entry, kind, vocab_size, progress)
    kept = _load(path)
    if kept is not None:
        return kept
    shutil.rmtree(path, ignore_errors=True)

    def texts() -> Iterator[str]:
        seen, whole = 0, 0
        for piece in pieces(entry):
            seen += len(piece.text)
            whole += piece.ends
            if progress:
                progress("learning the vocabulary", seen, 0)
            yield piece.text
            if kind != "char" and seen >= SAMPLE:
                return
        if kind == "char" and whole > 1:
            yield "\n"  # what will stand between the documents

    tokenizer = tokenizers.build(kind, texts, vocab_size, lab)
    if source_stamps(entry) != stamps:
        raise CorpusError(
            f"corpus '{corpus}' was changed while its vocabulary was being learned", "try again"
        )
    _keep(tokenizer, path)
    return tokenizer


def find_tokenizer(lab: Lab, corpus: str, kind: str, vocab_size: int) -> Tokenizer | None:
    """What `get_tokenizer` would give without any work; None where it would have to train one.

    Raises CorpusError for an unknown or absent corpus, TokenizerError for an unknown kind.
    """
    from engine import tokenizers

    if kind in tokenizers.UNTRAINED or kind not in tokenizers.KINDS:
        return tokenizers.build(kind, lambda: (), vocab_size, lab)
    return _load(_path(lab, find_corpus(lab, corpus), kind, vocab_size, None))


def _path(
    lab: Lab, entry: CorpusEntry, kind: str, vocab_size: int, progress: Progress | None
) -> Path:
    """Where the tokenizer is kept: under what it was learned from and what it was asked to be."""
    size = 0 if kind == "char" else vocab_size
    content = corpus_digest(lab, entry, progress)
    key = hashlib.sha256(f"{content}\0{kind}\0{size}\0{SAMPLE}".encode()).hexdigest()
    name = f"{entry.name}-{kind}{f'-{size}' if size else ''}-{key[:12]}"
    return lab.corpus / "prepared" / "tokenizers" / name


def _load(path: Path) -> Tokenizer | None:
    from engine import tokenizers

    try:
        return tokenizers.load(path)
    except TokenizerError:
        return None


def _keep(tokenizer: Tokenizer, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        build = Path(tempfile.mkdtemp(prefix=".tmp-", dir=path.parent))
    except OSError:
        return
    try:
        tokenizer.save(build)
        build.rename(path)
    except (OSError, TokenizerError):
        return  # another process was faster, or the disk is full: it can be built again
    finally:
        shutil.rmtree(build, ignore_errors=True)
