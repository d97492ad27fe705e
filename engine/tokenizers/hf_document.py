"""What a Hugging Face `tokenizer.json` says, field by field: the bytes behind every id.

Two ways of spelling text are read: byte-level BPE (GPT-2, Llama 3, Qwen), and SentencePiece's, with
"▁" for a space and a token for every byte that no piece has (Llama 2, Mistral). All else that
changes text or loses some is refused by the field's name, so that byte lengths are exact. Runs
nothing: the `tokenizers` package does (`hf`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import TokenizerError
from engine.tokenizers.alphabet import CHARACTER_OF, unspell
from engine.tokenizers.split import AFTER_LETTER

MAX_TOKENS = 1 << 20
MAX_TABLE_BYTES = 1 << 26
SPACE = "▁"  # SentencePiece's

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LETTERS_END = frozenset(
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|" + numbers + _REST
    for numbers in (r"\p{N}", r"\p{N}{1,3}")
)
"""The patterns of Qwen and of Llama 3, whose pieces end where an ASCII letter does."""

_FORMS = ("NFC", "NFD", "NFKC", "NFKD")
_NOTHING = (None, "")


@dataclass(frozen=True)
class Reading:
    """What a document decides."""

    table: tuple[bytes, ...]
    """The bytes of text behind each id; b"" for special tokens, and for ids that nothing has."""
    special: dict[str, int]
    added: dict[str, int]
    """Tokens that are found in text before anything else, and stand for what they spell."""
    byte_level: bool
    prefixed: bool
    """Whether a text is read as if a space stood before it."""
    safe: re.Pattern[str] | None
    """Where text can be cut (see `Tokenizer.safe_cut`); None where no place is known."""


def read_document(document: Any, vocab_size: int = 0) -> Reading:
    """What `document` (a tokenizer.json, parsed) says, with at least `vocab_size` ids.

    Raises TokenizerError naming the field: the caller names the file.
    """
    if not isinstance(document, dict):
        raise TokenizerError("not a JSON object")
    model = _object(document, "model")
    vocab = _vocabulary(model)
    special, added = added_tokens(document)
    _check_model(model)
    normalizers = list(_flat(document, "normalizer", "normalizers"))
    splitters = list(_flat(document, "pre_tokenizer", "pretokenizers"))
    decoders = list(_flat(document, "decoder", "decoders"))
    byte_level = any(node["type"] == "ByteLevel" for node in splitters)
    if byte_level:
        _check_byte_level(normalizers, splitters, decoders)
        _check_bytes(vocab, [CHARACTER_OF[byte] for byte in range(256)])
    else:
        _check_sentencepiece(model, normalizers, splitters, decoders)
        _check_bytes(vocab, [f"<0x{byte:02X}>" for byte in range(256)])
    size = 1 + max([*vocab.values(), *special.values(), *added.values(), vocab_size - 1])
    if size > MAX_TOKENS:
        raise TokenizerError(f"an id is {size - 1}: more than any vocabulary has")
    table = [b""] * size
    for text, token in vocab.items():
        table[token] = _byte_level_bytes(text) if byte_level else _sentencepiece_bytes(text)
    for text, token in added.items():
        table[token] = text.encode()
    for token in special.values():
        table[token] = b""
    if sum(map(len, table)) > MAX_TABLE_BYTES:
        raise TokenizerError("field 'model.vocab': the tokens grow beyond all bounds")
    return Reading(
        table=tuple(table),
        special=special,
        added=added,
        byte_level=byte_level,
        prefixed=not byte_level and _is_prefixed(normalizers, splitters),
        safe=AFTER_LETTER if byte_level and _letters_end(splitters, added) else None,
    )


def names(document: Mapping[str, Any]) -> dict[str, int]:
    """Token -> id of all that `document` has, added tokens too. Raises as `read_document`."""
    special, added = added_tokens(document)
    return {**_vocabulary(_object(document, "model")), **special, **added}


# Fields ----------------------------------------------------------------------------------------


def _object(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = content.get(name)
    if not isinstance(value, dict):
        raise TokenizerError(f"field '{name}' is not an object")
    return value


def _flat(document: Mapping[str, Any], name: str, inner: str) -> Iterator[dict[str, Any]]:
    """The steps of a pipeline, its sequences unrolled; each has a 'type'."""
    waiting = [document.get(name)]
    for _ in range(1000):
        if not waiting:
            return
        node = waiting.pop(0)
        if node is None:
            continue
        if not isinstance(node, dict) or not isinstance(node.get("type"), str):
            raise TokenizerError(f"field '{name}' has a step without a type")
        if node["type"] != "Sequence":
            yield node
        elif isinstance(steps := node.get(inner), list):
            waiting[:0] = steps
        else:
            raise TokenizerError(f"field '{name}.{inner}' is not a list")
    raise TokenizerError(f"field '{name}' has more steps than any pipeline")


def _refuse(field: str, node: Mapping[str, Any], why: str) -> TokenizerError:
    shown = {key: value for key, value in node.items() if key != "type"}
    return TokenizerError(
        f"field '{field}' has the step {node['type'][:40]!r} {str(shown)[:100]}: {why}",
        "byte-level BPE and SentencePiece's BPE with byte fallback can be read",
    )


def _vocabulary(model: Mapping[str, Any]) -> dict[str, int]:
    """Token -> id, each id once."""
    vocab = model.get("vocab")
    if not isinstance(vocab, dict) or not vocab:
        raise TokenizerError("field 'model.vocab' is not an object with tokens")
    if not all(type(token) is int and 0 <= token < MAX_TOKENS for token in vocab.values()):
        raise TokenizerError("field 'model.vocab' has an id that is no whole number in range")
    if len(set(vocab.values())) != len(vocab):
        raise TokenizerError("field 'model.vocab' has an id twice")
    return _utf8(vocab, "model.vocab")


def _utf8(vocab: dict[str, int], field: str) -> dict[str, int]:
    try:
        "".join(vocab).encode()
    except UnicodeEncodeError:
        raise TokenizerError(f"field '{field}' has a surrogate, which is no character") from None
    return vocab


def added_tokens(document: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    """The special tokens, and those added tokens that are ordinary text.

    Raises TokenizerError naming the entry and its field.
    """
    entries = document.get("added_tokens") or []
    if not isinstance(entries, list):
        raise TokenizerError("field 'added_tokens' is not a list")
    special: dict[str, int] = {}
    ordinary: dict[str, int] = {}
    for index, entry in enumerate(entries):
        where = f"field 'added_tokens', entry {index}"
        content, token = (
            (entry.get("content"), entry.get("id")) if isinstance(entry, dict) else (None, None)
        )
        if not isinstance(content, str) or not content:
            raise TokenizerError(f"{where}: 'content' is not a text")
        if type(token) is not int or not 0 <= token < MAX_TOKENS:
            raise TokenizerError(f"{where}: 'id' is not a whole number in range")
        if entry.get("special"):
            special[content] = token
            continue
        # A token that swallows the space beside it stands for bytes that its text does not have.
        for flag in ("lstrip", "rstrip"):
            if entry.get(flag):
                raise TokenizerError(
                    f"{where}: '{flag}' of {content[:40]!r} takes spaces that no byte length counts"
                )
        ordinary[content] = token
    return _utf8(special, "added_tokens"), _utf8(ordinary, "added_tokens")


# Pipelines -------------------------------------------------------------------------------------


def _check_model(model: Mapping[str, Any]) -> None:
    # Unigram would make special tokens of text that spells them, where BPE needs merges for it.
    if model.get("type") != "BPE":
        raise TokenizerError(
            f"field 'model.type' is {str(model.get('type'))[:40]!r}: not 'BPE'",
            "byte-level BPE and SentencePiece's BPE with byte fallback can be read",
        )
    if model.get("dropout"):
        raise TokenizerError(
            f"field 'model.dropout' is {str(model['dropout'])[:20]}: the same text would give "
            "other tokens each time",
            "set it to null",
        )
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name) not in _NOTHING:
            raise TokenizerError(
                f"field 'model.{name}' is {str(model[name])[:20]!r}: it adds text to tokens"
            )


def _check_byte_level(
    normalizers: list[dict[str, Any]],
    splitters: list[dict[str, Any]],
    decoders: list[dict[str, Any]],
) -> None:
    for node in normalizers:
        if node["type"] not in _FORMS:
            raise _refuse("normalizer", node, "it changes the text")
    for node in splitters:
        if node["type"] == "ByteLevel":
            if node.get("add_prefix_space"):
                raise _refuse("pre_tokenizer", node, "it adds a space to every text")
        elif not _only_splits(node):
            raise _refuse("pre_tokenizer", node, "it does more than divide the text")
    for node in decoders:
        if node["type"] != "ByteLevel":
            raise _refuse("decoder", node, "it gives another text than the bytes of the tokens")


def _only_splits(node: Mapping[str, Any]) -> bool:
    if node["type"] == "Split" and node.get("behavior") == "Removed":
        # What does not match is removed; these patterns match everything.
        return bool(node.get("invert")) and _pattern(node) in LETTERS_END
    return node["type"] in ("Split", "Punctuation", "Digits") and node.get("behavior") != "Removed"


def _check_sentencepiece(
    model: Mapping[str, Any],
    normalizers: list[dict[str, Any]],
    splitters: list[dict[str, Any]],
    decoders: list[dict[str, Any]],
) -> None:
    if not model.get("byte_fallback"):
        raise TokenizerError(
            "field 'model.byte_fallback' is not true, and no step is ByteLevel: characters outside "
            "the vocabulary would be lost",
            "byte-level BPE and SentencePiece's BPE with byte fallback can be read",
        )
    spaces = False
    for node in normalizers:
        if node["type"] == "Replace" and _is_space(node.get("pattern"), " ", node, SPACE):
            spaces = True
        elif node["type"] not in _FORMS and (node["type"], node.get("prepend")) != (
            "Prepend",
            SPACE,
        ):
            raise _refuse("normalizer", node, "it changes the text")
    for node in splitters:
        if node["type"] == "Metaspace" and node.get("replacement") == SPACE:
            spaces = True
        elif not _only_splits(node):
            raise _refuse("pre_tokenizer", node, "it does more than divide the text")
    if not spaces:
        raise TokenizerError(f"neither 'normalizer' nor 'pre_tokenizer' makes spaces {SPACE}")
    for node in decoders:
        kind = node["type"]
        if kind == "Replace" and _is_space(node.get("pattern"), SPACE, node, " "):
            continue
        if kind == "Strip" and (node.get("content"), node.get("stop")) == (" ", 0):
            continue
        if kind not in ("ByteFallback", "Fuse", "Metaspace"):
            raise _refuse("decoder", node, "it gives another text than the bytes of the tokens")


def _is_space(pattern: Any, old: str, node: Mapping[str, Any], new: str) -> bool:
    return pattern == {"String": old} and node.get("content") == new


def _check_bytes(vocab: Mapping[str, int], wanted: list[str]) -> None:
    for byte, text in enumerate(wanted):
        if text not in vocab:
            raise TokenizerError(
                f"field 'model.vocab' has no token {text!r} for the byte {byte}: text would be lost"
            )


def _is_prefixed(normalizers: list[dict[str, Any]], splitters: list[dict[str, Any]]) -> bool:
    if any(node["type"] == "Prepend" for node in normalizers):
        return True
    return any(
        node["type"] == "Metaspace"
        and node.get("prepend_scheme", "always" if node.get("add_prefix_space", True) else "never")
        != "never"
        for node in splitters
    )


def _pattern(node: Mapping[str, Any]) -> str:
    pattern = node.get("pattern")
    written = pattern.get("Regex") if isinstance(pattern, dict) else None
    return written if isinstance(written, str) else ""


def _letters_end(splitters: list[dict[str, Any]], added: Mapping[str, int]) -> bool:
    """Whether a cut after an ASCII letter, before a space or newline, cuts no piece."""
    if any(AFTER_LETTER.search(text) for text in added):
        return False
    first = splitters[0]
    if first["type"] == "Split":
        return _pattern(first) in LETTERS_END
    return first["type"] == "ByteLevel" and bool(first.get("use_regex", True))


# Bytes -----------------------------------------------------------------------------------------


def _byte_level_bytes(text: str) -> bytes:
    try:
        return unspell(text)
    except KeyError:  # no text's token, then: it is shown as it is written
        return text.encode()


_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


def _sentencepiece_bytes(text: str) -> bytes:
    if match := _BYTE_TOKEN.fullmatch(text):
        return bytes([int(match[1], 16)])
    return text.replace(SPACE, " ").encode()
