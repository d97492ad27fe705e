"""A byte-level BPE vocabulary as other programs' files want it: GGUF's metadata, tokenizer.json.

Tokens and merges are spelled in GPT-2's byte alphabet. What is no byte-level BPE is refused with
the reason. Knows no file format; no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from engine.errors import TokenizerError
from engine.tokenizers import ByteTokenizer, Tokenizer
from engine.tokenizers.alphabet import spell
from engine.tokenizers.bpe import RankedTokenizer
from engine.tokenizers.split import GPT2


class TokenType(IntEnum):
    """What an id is, in the numbers of GGUF's `tokenizer.ggml.token_type`."""

    NORMAL = 1
    CONTROL = 3
    """A special token: it stands for no text."""
    USER_DEFINED = 4
    """Text that is always one token, whatever the merges say."""
    UNUSED = 5
    """An id that no text has."""


@dataclass(frozen=True)
class BpeVocabulary:
    """Everything that decides the ids of a text."""

    tokens: tuple[str, ...]
    """By id: in GPT-2's byte alphabet; control and user-defined tokens as they are written."""
    types: tuple[TokenType, ...]
    """By id."""
    merges: tuple[str, ...]
    """"left right", by falling priority."""
    pattern: str
    """The regular expression whose matches, in turn, are the pieces that no merge crosses. Of a
    vocabulary without merges any pattern gives the same ids."""
    eos_id: int | None
    """The token that ends a document."""
    bos_id: int | None
    """The token that begins one; GPT-2's habit, and ours, is the same token."""


def bpe_vocabulary(tokenizer: Tokenizer) -> BpeVocabulary:
    """The vocabulary of a byte-level BPE (bytes, bpe, gpt2). Raises TokenizerError for others."""
    if isinstance(tokenizer, RankedTokenizer):
        merges, pattern = tuple(tokenizer.spelled_merges()), tokenizer.split.pattern
    elif isinstance(tokenizer, ByteTokenizer):
        merges, pattern = (), GPT2.pattern
    else:
        raise TokenizerError(
            f"a {tokenizer.kind} tokenizer is no byte-level BPE: {_WHY_NOT[tokenizer.kind]}",
            "train the run with data.tokenizer = 'bpe', 'gpt2' or 'bytes'",
        )
    special = {token: name for name, token in tokenizer.special_tokens.items()}
    ids = range(tokenizer.vocab_size)
    return BpeVocabulary(
        tokens=tuple(special.get(i) or spell(tokenizer.token_bytes(i)) for i in ids),
        types=tuple(TokenType.CONTROL if i in special else TokenType.NORMAL for i in ids),
        merges=merges,
        pattern=pattern,
        eos_id=tokenizer.eot_id,
        bos_id=tokenizer.eot_id,
    )


_WHY_NOT = {
    "char": "it has a token a character, and none for the bytes of a character it has not seen",
    "word": "it has a token a word, and <unk> for all words that it has not seen",
}
