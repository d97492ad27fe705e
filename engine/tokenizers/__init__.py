"""Text to token ids and back: six kinds behind one protocol, each saved as one checked folder.

`build` makes a tokenizer from text, `load` reads one back, `find` takes what a person would type.
Nothing here knows of corpora, runs' files or the model, and nothing imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from engine.errors import TokenizerError, did_you_mean
from engine.lab import Lab
from engine.tokenizers.base import END_OF_TEXT, Tokenizer
from engine.tokenizers.bpe import BpeTokenizer
from engine.tokenizers.byte import ByteTokenizer
from engine.tokenizers.char import CharTokenizer
from engine.tokenizers.gpt2 import Gpt2Tokenizer
from engine.tokenizers.hf import HfTokenizer
from engine.tokenizers.store import KINDS, UNTRAINED, find, load, load_of_run
from engine.tokenizers.stream import StreamDecoder
from engine.tokenizers.word import WordTokenizer

__all__ = [
    "END_OF_TEXT",
    "KINDS",
    "UNTRAINED",
    "BpeTokenizer",
    "ByteTokenizer",
    "CharTokenizer",
    "Gpt2Tokenizer",
    "HfTokenizer",
    "StreamDecoder",
    "Tokenizer",
    "WordTokenizer",
    "build",
    "find",
    "load",
    "load_of_run",
]


def build(
    kind: str, texts: Callable[[], Iterable[str]], vocab_size: int, lab: Lab | None = None
) -> Tokenizer:
    """A tokenizer of `kind` for the documents that `texts()` gives, each time it is called.

    `vocab_size` counts special tokens and binds bpe and word alone; a text too small for it gives
    a smaller vocabulary, so read the size off the result. `lab` may hold gpt2's `vocab.bpe`.
    Raises TokenizerError: unknown kind, or hf; no text; too small a size; no `vocab.bpe`.
    """
    if kind == "bytes":
        return ByteTokenizer()
    if kind == "gpt2":
        return Gpt2Tokenizer.local(lab)
    if kind == "char":
        return CharTokenizer.train(texts())
    if kind == "word":
        return WordTokenizer.train(texts(), vocab_size)
    if kind == "bpe":
        return BpeTokenizer.train(texts(), vocab_size)
    if kind == HfTokenizer.kind:
        raise TokenizerError(
            "a tokenizer of kind 'hf' is not built: it comes with an imported model",
            "tui-lab checkpoints import FOLDER, then train on in that run",
        )
    raise TokenizerError(f"unknown kind of tokenizer '{kind}'", did_you_mean(kind, KINDS))
