"""Byte-level BPE, learned from a corpus and run by tiktoken.

Any text can be encoded, since every byte is a token. Text is first split by Qwen 2's pattern (see
`split`), which other programs have too; merges never cross a piece. Knows nothing of how merges are
learned (`train_bpe`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from engine.errors import TokenizerError
from engine.tokenizers import train_bpe
from engine.tokenizers.alphabet import spell
from engine.tokenizers.base import END_OF_TEXT, Tokenizer
from engine.tokenizers.split import QWEN2, Split

if TYPE_CHECKING:
    import tiktoken

LEAST = 257  # 256 bytes and the end of text


class RankedTokenizer(Tokenizer):
    """What bpe and gpt2 share: tokens whose ids are their merge ranks, and tiktoken to run them."""

    split: Split

    def __init__(self, tokens: Sequence[bytes], split: Split) -> None:
        """`tokens`: distinct, every single byte among them, by rank; end of text comes last."""
        super().__init__([*tokens, b""], {END_OF_TEXT: len(tokens)})
        self.split = split

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        """Built at first use: browsing a vocabulary needs no encoder."""
        import tiktoken

        return tiktoken.Encoding(
            name=f"tui-lab-{self.kind}",
            pat_str=self.split.pattern,
            mergeable_ranks={token: rank for rank, token in enumerate(self._table[:-1])},
            special_tokens=self.special_tokens,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Without the encoder, which another process builds for itself."""
        return {name: value for name, value in vars(self).items() if name != "_encoding"}

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for block in self.split.blocks(text):
            ids += self._encoding.encode_ordinary(block)
        return ids

    def encode_array(self, text: str) -> np.ndarray:
        parts = [
            self._encoding.encode_to_numpy(block, disallowed_special=()).astype(self.dtype)
            for block in self.split.blocks(text)
        ]
        return np.concatenate(parts) if parts else np.empty(0, dtype=self.dtype)

    def safe_cut(self, text: str, position: int) -> int:
        return self.split.safe_cut(text, position)

    @abstractmethod
    def spelled_merges(self) -> list[str]:
        """The merges in rank order, "left right", in GPT-2's byte alphabet."""


class BpeTokenizer(RankedTokenizer):
    """Ids 0 to 255 are bytes, then come the merges as they were learned, then end of text."""

    kind: ClassVar[str] = "bpe"

    def __init__(self, merges: Sequence[train_bpe.Pair], split: Split = QWEN2) -> None:
        """`merges[i]`: the two ids that make token 256 + i; all tokens' bytes must differ."""
        tokens = [bytes([value]) for value in range(256)] + train_bpe.spell_merges(merges)
        super().__init__(tokens, split)
        self.merges = tuple(merges)

    def spelled_merges(self) -> list[str]:
        spelled = [spell(token) for token in self._table]
        return [f"{spelled[left]} {spelled[right]}" for left, right in self.merges]

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, split: Split = QWEN2) -> BpeTokenizer:
        """The tokenizer of `vocab_size` ids for `texts`; smaller when the text gives fewer merges.

        Raises TokenizerError: no text, or a size below 257.
        """
        if vocab_size < LEAST:
            raise TokenizerError(
                f"vocab_size = {vocab_size}: too small for bpe",
                f"at least {LEAST}: the 256 bytes and {END_OF_TEXT}",
            )
        seen = _Seen(texts)
        learned = train_bpe.train(seen, vocab_size - LEAST, split)
        if not seen.any:
            raise TokenizerError("there is no text to learn merges from")
        return cls(train_bpe.recover_merges(learned), split)

    def settings(self) -> dict[str, Any]:
        return {"split": self.split.name, "merges": [list(pair) for pair in self.merges]}


class _Seen:
    """Texts passed through, noting whether there were any."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.any = False

    def __iter__(self):
        for text in self._texts:
            self.any = self.any or bool(text)
            yield text
