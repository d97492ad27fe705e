"""A byte-level BPE vocabulary as other programs' files want it: GGUF's metadata, tokenizer.json.

Tokens and merges are spelled in GPT-2's byte alphabet. What is no byte-level BPE is refused with
the reason. Knows no file format; no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from engine.errors import TokenizerError
from engine.tokenizers import ByteTokenizer, HfTokenizer, Tokenizer
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
    """The vocabulary of a byte-level BPE: bytes, bpe, gpt2, and hf where it is one.

    Raises TokenizerError for others, with the reason.
    """
    bos_id = tokenizer.eot_id
    if isinstance(tokenizer, RankedTokenizer):
        merges, pattern = tuple(tokenizer.spelled_merges()), tokenizer.split.pattern
    elif isinstance(tokenizer, ByteTokenizer):
        merges, pattern = (), GPT2.pattern
    elif isinstance(tokenizer, HfTokenizer):
        merges, pattern = _merges(tokenizer), _pattern(tokenizer)
        bos_id = tokenizer.bos_id
    else:
        raise _refusal(tokenizer, _WHY_NOT[tokenizer.kind])
    tokens, types = _tokens(tokenizer)
    return BpeVocabulary(tokens, types, merges, pattern, tokenizer.eot_id, bos_id)


_WHY_NOT = {
    "char": "it has a token a character, and none for the bytes of a character it has not seen",
    "word": "it has a token a word, and <unk> for all words that it has not seen",
}


def _refusal(tokenizer: Tokenizer, why: str) -> TokenizerError:
    return TokenizerError(
        f"the {tokenizer.kind} tokenizer is no byte-level BPE: {why}",
        "train the run with data.tokenizer = 'bpe', 'gpt2' or 'bytes'",
    )


def _tokens(tokenizer: Tokenizer) -> tuple[tuple[str, ...], tuple[TokenType, ...]]:
    """By id: what is written for it, and its type."""
    special = {token: name for name, token in tokenizer.special_tokens.items()}
    added: dict[int, str] = {}
    if isinstance(tokenizer, HfTokenizer):
        added = {token: name for name, token in tokenizer.reading.added.items()}
    tokens, types = [], []
    for token in range(tokenizer.vocab_size):
        data = tokenizer.token_bytes(token)
        if token in special:
            tokens.append(special[token])
            types.append(TokenType.CONTROL)
        elif token in added:
            tokens.append(added[token])
            types.append(TokenType.USER_DEFINED)
        elif data:
            tokens.append(spell(data))
            types.append(TokenType.NORMAL)
        else:  # files want a name for each, and each name once
            tokens.append(f"[PAD{token}]")
            types.append(TokenType.UNUSED)
    return tuple(tokens), tuple(types)


def _merges(tokenizer: HfTokenizer) -> tuple[str, ...]:
    merges = tokenizer.document["model"]["merges"]
    if not tokenizer.reading.byte_level:
        raise _refusal(tokenizer, "it is SentencePiece's, which spells a space as ▁")
    return tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in merges)


def _pattern(tokenizer: HfTokenizer) -> str:
    """The one pattern of the folder's splitting rule."""
    node = tokenizer.document["pre_tokenizer"]
    steps = node["pretokenizers"] if node["type"] == "Sequence" else [node]
    *before, last = steps
    if not before and last.get("use_regex", True):
        return GPT2.pattern
    if len(before) == 1 and before[0]["type"] == "Split" and not last.get("use_regex", True):
        written = before[0].get("pattern", {}).get("Regex")
        if isinstance(written, str):
            return written
    raise _refusal(tokenizer, "it divides text by more than one pattern")
