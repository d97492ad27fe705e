"""Our tokenizers as documents in the format of `tokenizer.json`, and such a document as ours again.

The format's regular expressions are Oniguruma's, where `{1,2}+` is no possessive repetition and `$`
ends a line: the patterns are written for it. No file is known here, and no package needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from engine.errors import TokenizerError
from engine.exchange.vocabulary import bpe_vocabulary
from engine.tokenizers import (
    BpeTokenizer,
    ByteTokenizer,
    CharTokenizer,
    Gpt2Tokenizer,
    HfTokenizer,
    Tokenizer,
)
from engine.tokenizers.alphabet import CHARACTER_OF
from engine.tokenizers.gpt2 import SHA256
from engine.tokenizers.hf_document import added_tokens
from engine.tokenizers.split import GPT2, GPT4, QWEN2, Split

_WHOLE_TEXT = {"add_prefix_space": False, "trim_offsets": True}
_GPT2_SPLIT = {"type": "ByteLevel", **_WHOLE_TEXT, "use_regex": True}
_NO_SPLIT = {"type": "ByteLevel", **_WHOLE_TEXT, "use_regex": False}
_PATTERNS = {
    QWEN2: r"'(?:[sdmtSDMT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s",
    GPT4: r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+\z|\s*[\r\n]|\s+(?!\S)|\s",
}
"""The rules of `engine.tokenizers.split` as the `tokenizers` package spells them."""
_EACH_CHARACTER = {
    "type": "Split",
    "pattern": {"Regex": r"[\s\S]"},
    "behavior": "Isolated",
    "invert": False,
}


def document_of(tokenizer: Tokenizer) -> dict[str, Any]:
    """The document that gives exactly our ids. Raises TokenizerError: no document does (word)."""
    if isinstance(tokenizer, HfTokenizer):
        return tokenizer.document
    if isinstance(tokenizer, CharTokenizer):
        # Without an unknown token in the vocabulary a character outside it is refused, as by us.
        model = {
            "type": "WordLevel",
            "vocab": {character: i for i, character in enumerate(tokenizer.characters)},
            "unk_token": "<unk>",
        }
        return _frame(tokenizer.special_tokens, model, _EACH_CHARACTER, {"type": "Fuse"})
    if tokenizer.kind == "word":
        raise TokenizerError(
            "a word tokenizer cannot be written as tokenizer.json: of a word that is not in the "
            "vocabulary it keeps the space before <unk>, which the format cannot say",
            "train the run with data.tokenizer = 'bpe', 'gpt2', 'bytes' or 'char'",
        )
    vocabulary = bpe_vocabulary(tokenizer)
    end = set(tokenizer.special_tokens.values())
    vocab = {token: i for i, token in enumerate(vocabulary.tokens) if i not in end}
    return byte_level_document(
        vocab, vocabulary.merges, tokenizer.special_tokens, _splitter(tokenizer)
    )


def byte_level_document(
    vocab: Mapping[str, int],
    merges: tuple[str, ...],
    special: Mapping[str, int],
    splitter: Mapping[str, Any] = _GPT2_SPLIT,
) -> dict[str, Any]:
    """A byte-level BPE that splits by GPT-2's rule, or by `splitter`."""
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        # tiktoken looks a whole piece up before it merges.
        "ignore_merges": True,
        "vocab": dict(vocab),
        "merges": [merge.split(" ") for merge in merges],
    }
    return _frame(special, model, splitter, {"type": "ByteLevel", **_WHOLE_TEXT, "use_regex": True})


def own_tokenizer(document: Mapping[str, Any]) -> Tokenizer | None:
    """The tokenizer of ours whose document this is; None when it is another's.

    Raises TokenizerError naming a field that no tokenizer's document has so.
    """
    candidate = _candidate(document)
    if candidate is None:
        return None
    written = document_of(candidate)
    return candidate if _rule(written) == _rule(document) else None


def _candidate(document: Mapping[str, Any]) -> Tokenizer | None:
    """What the document's model could be; nothing else of it has been compared."""
    model = document.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(vocab, dict):
        return None
    if model.get("type") == "WordLevel":
        characters = "".join(vocab)
        surrogates = any("\ud800" <= character <= "\udfff" for character in characters)
        sound = vocab and len(characters) == len(vocab) and not surrogates
        return CharTokenizer(characters) if sound else None
    merges = _pairs(model.get("merges"))
    if model.get("type") != "BPE" or merges is None:
        return None
    if not merges:
        return ByteTokenizer()
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges), ""]
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    if hashlib.sha256(data).hexdigest() == SHA256:
        return Gpt2Tokenizer(data)
    ids = {CHARACTER_OF[byte]: byte for byte in range(256)}
    pairs = []
    for left, right in merges:
        if left not in ids or right not in ids or left + right in ids:
            return None
        pairs.append((ids[left], ids[right]))
        ids[left + right] = len(ids)
    for split in _PATTERNS:
        if document.get("pre_tokenizer") == _split_by(split):
            return BpeTokenizer(pairs, split)
    return BpeTokenizer(pairs, GPT2)


def _pairs(merges: Any) -> list[tuple[str, str]] | None:
    """The merges, which files write as "a b" or as ["a", "b"]; None when they are neither."""
    if not isinstance(merges, list):
        return None
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return None
    if not all(isinstance(part, str) for pair in pairs for part in pair):
        return None
    return [(left, right) for left, right in pairs]


def _rule(document: Mapping[str, Any]) -> Any:
    """What of a document decides ids, in one form; older files leave some of it out."""
    model = document["model"]
    merges = _pairs(model.get("merges"))
    published = merges is not None and len(merges) == 50_000  # GPT-2's reach every token
    vocab = dict(model["vocab"])
    special, ordinary = added_tokens(document)
    for name in (*special, *ordinary):
        vocab.pop(name, None)
    return (
        special,
        ordinary,
        document.get("normalizer"),
        _without(document.get("pre_tokenizer"), "trim_offsets"),
        _without(document.get("decoder"), "trim_offsets", "add_prefix_space", "use_regex"),
        vocab,
        merges,
        bool(model.get("ignore_merges")) or published,
        [
            model.get(name) or None
            for name in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")
        ],
    )


def _without(node: Any, *names: str) -> Any:
    if not isinstance(node, dict):
        return node
    return {key: value for key, value in node.items() if key not in names}


def _splitter(tokenizer: Tokenizer) -> dict[str, Any]:
    if isinstance(tokenizer, ByteTokenizer):
        return _NO_SPLIT
    if isinstance(tokenizer, BpeTokenizer) and tokenizer.split in _PATTERNS:
        return _split_by(tokenizer.split)
    return _GPT2_SPLIT


def _split_by(split: Split) -> dict[str, Any]:
    pattern = {
        "type": "Split",
        "pattern": {"Regex": _PATTERNS[split]},
        "behavior": "Isolated",
        "invert": False,
    }
    return {"type": "Sequence", "pretokenizers": [pattern, _NO_SPLIT]}


def _frame(
    special: Mapping[str, int],
    model: Mapping[str, Any],
    splitter: Mapping[str, Any],
    decoder: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(name, token) for name, token in special.items()],
        "normalizer": None,
        "pre_tokenizer": dict(splitter),
        "post_processor": None,
        "decoder": dict(decoder),
        "model": dict(model),
    }


def added_token(content: str, token: int) -> dict[str, Any]:
    """A special token, as `added_tokens` lists it."""
    return {
        "id": token,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
