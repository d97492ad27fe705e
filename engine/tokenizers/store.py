"""Tokenizers on disk: `tokenizer.json` read back with every field checked, and names resolved.

A file is believed only when its fields have the right types and ranges and its digest fits; all
that is wrong with one is a TokenizerError naming the file and the field.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import TokenizerError, did_you_mean
from engine.lab import Lab
from engine.plain_file import read_plain
from engine.tokenizers.base import FILE_NAME, FORMAT, Tokenizer, digest_of
from engine.tokenizers.bpe import BpeTokenizer
from engine.tokenizers.byte import ByteTokenizer
from engine.tokenizers.char import CharTokenizer
from engine.tokenizers.gpt2 import SHA256, VOCAB_FILE, Gpt2Tokenizer
from engine.tokenizers.hf import HF_FILE, MAX_BYTES, HfTokenizer
from engine.tokenizers.split import SPLITS
from engine.tokenizers.word import WordTokenizer

KINDS = ("bytes", "char", "word", "bpe", "gpt2")  # that can be built; "hf" can only be imported
UNTRAINED = ("bytes", "gpt2")  # kinds that need no text
RUN_FOLDER = "tokenizer"

_MAX_FILE_BYTES = 1 << 25
_MAX_TOKENS = 1 << 20
_MAX_TABLE_BYTES = 1 << 26  # merges can double a token's length each: a small file, a huge table


def load(directory: Path, *, follow: bool = True) -> Tokenizer:
    """The tokenizer saved in `directory`, to which with `follow` links may lead.

    Raises TokenizerError naming the file and the field.
    """
    path = directory / FILE_NAME
    content = _read_json(path, follow)
    try:
        return _parse(content, directory)
    except _BadFieldError as error:
        raise TokenizerError(
            f"{path}: {error}", "the file is damaged or was edited: train the tokenizer again"
        ) from None


def load_of_run(run_path: Path) -> Tokenizer:
    """The tokenizer in a run's folder, where no link is followed. Raises TokenizerError."""
    for folder in (run_path, run_path / RUN_FOLDER):
        if folder.is_symlink():
            raise TokenizerError(f"'{folder}' is a symbolic link", "it is not followed")
    return load(run_path / RUN_FOLDER, follow=False)


def find(lab: Lab, reference: str) -> Tokenizer:
    """The tokenizer that `reference` names: a folder, a run, or a kind that needs no text.

    A folder is one that holds `tokenizer.json`, or `tokenizer/tokenizer.json` as a run's does.
    Raises TokenizerError with the nearest known name.
    """
    folder = _as_folder(reference)
    for directory in (folder, folder / RUN_FOLDER) if folder else ():
        if (directory / FILE_NAME).exists():
            return load(directory)
    if reference == "bytes":
        return ByteTokenizer()
    if reference == "gpt2":
        return Gpt2Tokenizer.local(lab)
    runs = _runs(lab)
    if reference in runs:
        return load_of_run(runs[reference])
    if reference in KINDS:
        raise TokenizerError(
            f"a {reference} tokenizer has to be trained first",
            f"tui-lab tokenizer train FILE --kind {reference} --out FOLDER, then name the folder",
        )
    if folder:
        raise TokenizerError(f"there is no {FILE_NAME} in '{folder}'")
    shown = reference[:200]
    raise TokenizerError(f"no tokenizer called '{shown}'", did_you_mean(shown, [*runs, *UNTRAINED]))


def _as_folder(reference: str) -> Path | None:
    """The folder that `reference` spells, if it is there."""
    try:
        folder = Path(reference).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, the home of nobody
        return None


def _runs(lab: Lab) -> dict[str, Path]:
    """The folders of the runs that have a tokenizer; the lab's own hide the shipped."""
    found: dict[str, Path] = {}
    for place in reversed(lab.places("checkpoints")):
        if place.is_dir():
            for path in place.glob(f"*/{RUN_FOLDER}/{FILE_NAME}"):
                found[path.parent.parent.name] = path.parent.parent
    return found


def _read_json(path: Path, follow: bool) -> Any:
    try:
        if not path.is_file():
            raise TokenizerError(f"there is no {path.name} in '{path.parent}'")
        return json.loads(read_plain(path, _MAX_FILE_BYTES, follow=follow).decode())
    except OSError as error:
        raise TokenizerError(f"cannot read '{path}': {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        what = str(error) or type(error).__name__
        raise TokenizerError(
            f"{path}: not valid JSON: {what}", "the file is damaged: train the tokenizer again"
        ) from None


class _BadFieldError(Exception):
    """What is wrong with a field; `load` adds the file's name."""


def _field(content: Mapping[str, Any], name: str, kind: type) -> Any:
    if name not in content:
        raise _BadFieldError(f"field '{name}' is missing")
    value = content[name]
    if type(value) is not kind:  # bool is an int to isinstance, and is none here
        words = {str: "a text", int: "a whole number", list: "a list"}
        raise _BadFieldError(f"field '{name}' is not {words[kind]}")
    return value


def _parse(content: Any, directory: Path) -> Tokenizer:
    if not isinstance(content, dict):
        raise _BadFieldError("not a JSON object")
    if "format" not in content and "added_tokens" in content:
        raise TokenizerError(
            f"'{directory / FILE_NAME}' is of a Hugging Face folder",
            f"tui-lab checkpoints import '{directory}' makes a run of it, with its tokenizer",
        )
    version = _field(content, "format", int)
    if version != FORMAT:
        raise _BadFieldError(f"field 'format' is {version}: this version reads {FORMAT}")
    kind = _field(content, "kind", str)
    if kind not in _PARSERS:
        raise _BadFieldError(f"field 'kind' is {kind[:40]!r}: not one of {', '.join(_PARSERS)}")
    tokenizer = _PARSERS[kind](content, directory)
    if _field(content, "vocab_size", int) != tokenizer.vocab_size:
        raise _BadFieldError(
            f"field 'vocab_size' is {content['vocab_size']}: the vocabulary has "
            f"{tokenizer.vocab_size} ids"
        )
    if _field(content, "digest", str) != digest_of(kind, tokenizer.settings()):
        raise _BadFieldError("field 'digest' does not fit the contents")
    return tokenizer


def _parse_bytes(content: Mapping[str, Any], directory: Path) -> Tokenizer:
    return ByteTokenizer()


def _parse_char(content: Mapping[str, Any], directory: Path) -> Tokenizer:
    characters = _field(content, "characters", str)
    if not characters:
        raise _BadFieldError("field 'characters' is empty")
    if len(set(characters)) != len(characters):
        raise _BadFieldError("field 'characters' has a character twice")
    _check_utf8("characters", characters)
    return CharTokenizer(characters)


def _parse_word(content: Mapping[str, Any], directory: Path) -> Tokenizer:
    pieces = _field(content, "pieces", list)
    if not all(isinstance(piece, str) and piece for piece in pieces):
        raise _BadFieldError("field 'pieces' has an entry that is no text, or empty")
    if len(set(pieces)) != len(pieces):
        raise _BadFieldError("field 'pieces' has an entry twice")
    if " " not in pieces:
        raise _BadFieldError("field 'pieces' has no single space")
    _check_utf8("pieces", "".join(pieces))
    return WordTokenizer(pieces)


def _parse_bpe(content: Mapping[str, Any], directory: Path) -> Tokenizer:
    name = _field(content, "split", str)
    if name not in SPLITS:
        raise _BadFieldError(f"field 'split' is {name[:40]!r}: not one of {', '.join(SPLITS)}")
    return BpeTokenizer(_checked_merges(_field(content, "merges", list)), SPLITS[name])


def _checked_merges(merges: list[Any]) -> list[tuple[int, int]]:
    """The merges as pairs, once it is certain that they spell a sound vocabulary."""
    if len(merges) > _MAX_TOKENS:
        raise _BadFieldError("field 'merges' has more entries than any vocabulary")
    table = [bytes([value]) for value in range(256)]
    total, pairs = 0, []
    for index, entry in enumerate(merges):
        where = f"field 'merges', entry {index}"
        sound = isinstance(entry, list) and len(entry) == 2
        if not sound or not all(type(part) is int for part in entry):
            raise _BadFieldError(f"{where}: not a pair of ids")
        left, right = entry
        if not (0 <= left < len(table) and 0 <= right < len(table)):
            raise _BadFieldError(f"{where}: names an id that no earlier entry makes")
        total += len(table[left]) + len(table[right])
        if total > _MAX_TABLE_BYTES:
            raise _BadFieldError(f"{where}: the tokens grow beyond all bounds")
        table.append(table[left] + table[right])
        pairs.append((left, right))
    if len(set(table)) != len(table):
        raise _BadFieldError("field 'merges' makes a token twice")
    return pairs


def _parse_gpt2(content: Mapping[str, Any], directory: Path) -> Tokenizer:
    if _field(content, "vocab_bpe_sha256", str) != SHA256:
        raise _BadFieldError("field 'vocab_bpe_sha256' is not that of GPT-2's vocabulary")
    beside = directory / VOCAB_FILE
    return Gpt2Tokenizer.from_file(beside) if beside.exists() else Gpt2Tokenizer.local()


def _parse_hf(content: Mapping[str, Any], directory: Path) -> Tokenizer:
    sha256, size = _field(content, "hf_sha256", str), _field(content, "vocab_size", int)
    eos, bos = (
        None if content.get(name) is None else _field(content, name, int) for name in ("eos", "bos")
    )
    path = directory / HF_FILE
    try:
        data = read_plain(path, MAX_BYTES)
    except OSError as error:
        raise TokenizerError(f"cannot read '{path}': {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise _BadFieldError(f"field 'hf_sha256' is not that of {HF_FILE} beside it")
    try:
        return HfTokenizer(data, eos, bos, size)
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error.title}", error.hint) from None


def _check_utf8(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _BadFieldError(f"field '{name}' has a surrogate, which is no character") from None


_PARSERS: dict[str, Callable[[Mapping[str, Any], Path], Tokenizer]] = {
    "bytes": _parse_bytes,
    "char": _parse_char,
    "word": _parse_word,
    "bpe": _parse_bpe,
    "gpt2": _parse_gpt2,
    "hf": _parse_hf,
}
