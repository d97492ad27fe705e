"""The tokenizer's files of a Hugging Face folder, written and read.

`AutoTokenizer` loads what is written and gives our ids. What is read becomes one of our own kinds
where that is exactly the same, else "hf". Files from outside are bounded, and code that they name
(`auto_map`) is never looked at. Needs no torch; only the kind "hf" needs the `tokenizers` package.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.atomic import write_text
from engine.errors import TokenizerError
from engine.exchange.tokenizer_document import (
    added_token,
    byte_level_document,
    document_of,
    own_tokenizer,
)
from engine.plain_file import read_plain
from engine.tokenizers import HfTokenizer, Tokenizer
from engine.tokenizers.hf import MAX_BYTES
from engine.tokenizers.hf_document import MAX_TOKENS, names

TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
SPECIAL = "special_tokens_map.json"
VOCAB, MERGES = "vocab.json", "merges.txt"
_MAX_SETTINGS = 1 << 24
_END = {"eos": "eos_token", "bos": "bos_token"}


# Writing ---------------------------------------------------------------------------------------


def write_tokenizer(tokenizer: Tokenizer, directory: Path) -> list[Path]:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json; the files written.

    Text that spells a special token stays text (`split_special_tokens`), as it is with us. Raises
    TokenizerError: the kind cannot be expressed (word), or the folder cannot be written.
    """
    document = document_of(tokenizer)
    name_of = {token: name for name, token in tokenizer.special_tokens.items()}
    bos = tokenizer.bos_id if isinstance(tokenizer, HfTokenizer) else tokenizer.eot_id
    special = {
        _END[end]: name_of[token]
        for end, token in (("bos", bos), ("eos", tokenizer.eot_id))
        if token is not None
    }
    settings = {
        # The class that takes tokenizer.json as it is: those of a model bring rules of their own.
        "tokenizer_class": "PreTrainedTokenizerFast",
        **special,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
    }
    contents = {TOKENIZER: document, SETTINGS: settings, SPECIAL: special}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            indent = None if name == TOKENIZER else 2
            write_text(directory / name, json.dumps(content, ensure_ascii=False, indent=indent))
    except OSError as error:
        raise TokenizerError(
            f"cannot write the tokenizer to '{directory}': {error.strerror}",
            "choose a folder that can be written to",
        ) from error
    return [directory / name for name in contents]


# Reading ---------------------------------------------------------------------------------------


def read_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer of a folder that holds tokenizer.json, or GPT-2's vocab.json and merges.txt.

    Its ids are as many as config.json's vocab_size says, where that is there: a model's table is
    often longer than its vocabulary. The end of text is that of generation_config.json, config.json
    or tokenizer_config.json, in this order; of several the first.

    Raises TokenizerError naming the file and the field.
    """
    path, document = _document(directory)
    facts = _Facts(directory)
    size = facts.vocab_size()
    try:
        own = own_tokenizer(document)
        if own is not None and facts.agree(own, size):
            return own
        ids = names(document)
        ends = {end: facts.end(end, ids) for end in _END}
        document = _with_special(document, ids, ends)
        data = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        tokenizer = HfTokenizer(data, ends["eos"], ends["bos"], size)
        tokenizer.check()
    except _FieldError as error:
        raise TokenizerError(*error.args) from None
    except UnicodeEncodeError:
        raise TokenizerError(f"{path}: has a surrogate, which is no character") from None
    except RecursionError:
        raise TokenizerError(f"{path}: nested deeper than any tokenizer") from None
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error.title}", error.hint) from None
    if 0 < size < tokenizer.vocab_size:
        raise TokenizerError(
            f"{path} has ids up to {tokenizer.vocab_size - 1}, config.json's vocab_size is {size}",
            "the tokenizer and the model of the folder do not belong together",
        )
    return tokenizer


class _FieldError(Exception):
    """What is wrong with a field of another file than tokenizer.json: title and hint."""


def _document(directory: Path) -> tuple[Path, dict[str, Any]]:
    """The file that says most, and the document that it is or makes."""
    path = directory / TOKENIZER
    if path.is_file():
        document = _json(path, MAX_BYTES)
        model = document.get("model")
        if isinstance(model, dict) and "type" not in model and "merges" in model:
            model["type"] = "BPE"  # files of 2019 do not name it
        return path, document
    path = directory / VOCAB
    if not path.is_file() or not (directory / MERGES).is_file():
        raise TokenizerError(
            f"there is no {TOKENIZER} in '{directory}', nor {VOCAB} with {MERGES}",
            "a tokenizer.model alone is not read: transformers' AutoTokenizer(...).save_pretrained "
            f"writes a {TOKENIZER} from it",
        )
    vocab = _json(path, MAX_BYTES)
    merges = _merge_lines(directory / MERGES, vocab)
    end = "<|endoftext|>"
    special = {end: vocab[end]} if type(vocab.get(end)) is int else {}
    return path, byte_level_document(vocab, merges, special)


def _merge_lines(path: Path, vocab: Mapping[str, Any]) -> tuple[str, ...]:
    lines = _text(path, MAX_BYTES).split("\n")
    if lines and lines[0].startswith("#version"):
        del lines[0]
    merges = tuple(line for line in lines if line)
    for number, merge in enumerate(merges):
        parts = merge.split(" ")
        if len(parts) != 2 or not all(part in vocab for part in (*parts, "".join(parts))):
            raise TokenizerError(
                f"{path}: merge {number} is {merge[:40]!r}: not two tokens of {VOCAB} that make a "
                "third"
            )
    return merges


def _with_special(
    document: Mapping[str, Any], ids: Mapping[str, int], ends: Mapping[str, int | None]
) -> dict[str, Any]:
    """The document with its ends among the special tokens, as they are in no text, and without
    cutting or padding, which change ids."""
    changed = copy.copy(dict(document)) | {"truncation": None, "padding": None}
    wanted = {token for token in ends.values() if token is not None}
    name_of = {token: name for name, token in ids.items()}
    kept = [
        entry | {"special": True} if entry["id"] in wanted else entry
        for entry in document.get("added_tokens") or []
    ]
    missing = wanted - {entry["id"] for entry in kept}
    kept += [added_token(name_of[token], token) for token in sorted(missing)]
    return changed | {"added_tokens": sorted(kept, key=lambda entry: entry["id"])}


class _Facts:
    """What the folder's other files say about its tokenizer."""

    def __init__(self, directory: Path) -> None:
        self._paths = {
            name: directory / name
            for name in ("generation_config.json", "config.json", SETTINGS, SPECIAL)
        }
        self._contents = {
            name: _json(path, _MAX_SETTINGS) for name, path in self._paths.items() if path.is_file()
        }

    def vocab_size(self) -> int:
        """The model's; 0 where no config.json says it."""
        size = self._contents.get("config.json", {}).get("vocab_size", 0)
        if type(size) is not int or not 0 <= size <= MAX_TOKENS:
            raise TokenizerError(
                f"{self._paths['config.json']}: field 'vocab_size' is {str(size)[:40]!r}: not a "
                f"whole number up to {MAX_TOKENS}"
            )
        return size

    def agree(self, own: Tokenizer, size: int) -> bool:
        """Whether the folder wants nothing of `own` that it is not."""
        ids = own.special_tokens
        if size not in (0, own.vocab_size):
            return False
        try:
            return all(self.end(end, ids) in (None, own.eot_id) for end in _END)
        except _FieldError:  # an ordinary token, perhaps
            return False

    def end(self, end: str, ids: Mapping[str, int]) -> int | None:
        """The id of the 'eos' or 'bos' token. Raises _FieldError: it is no token's."""
        known = set(ids.values())
        for name in ("generation_config.json", "config.json"):
            value = self._contents.get(name, {}).get(f"{end}_token_id")
            token = value[0] if isinstance(value, list) and value else value
            if token is None:
                continue
            if type(token) is not int or token not in known:
                raise self._wrong(name, f"{end}_token_id", value)
            return token
        for name in (SETTINGS, SPECIAL):
            value = self._contents.get(name, {}).get(f"{end}_token")
            text = value.get("content") if isinstance(value, dict) else value
            if text is None:
                continue
            if not isinstance(text, str) or text not in ids:
                raise self._wrong(name, f"{end}_token", value)
            return ids[text]
        return None

    def _wrong(self, name: str, field: str, value: Any) -> _FieldError:
        return _FieldError(
            f"{self._paths[name]}: field '{field}' is {str(value)[:40]!r}: no token of the "
            "vocabulary",
            "the files of the folder do not belong together",
        )


def _json(path: Path, limit: int) -> dict[str, Any]:
    try:
        content = json.loads(_text(path, limit))
    except (ValueError, RecursionError) as error:
        what = str(error) or type(error).__name__
        raise TokenizerError(f"{path}: not valid JSON: {what}") from None
    if not isinstance(content, dict):
        raise TokenizerError(f"{path}: not a JSON object")
    return content


def _text(path: Path, limit: int) -> str:
    try:
        return read_plain(path, limit, follow=True).decode()  # a cache of the hub is full of links
    except OSError as error:
        raise TokenizerError(f"cannot read '{path}': {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path}: not UTF-8: {error.reason}") from None
