"""Tokenizers on disk: back unchanged, and hostile files refused by file and field."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import TokenizerError
from engine.lab import Lab
from engine.tokenizers import BpeTokenizer, ByteTokenizer, Tokenizer, WordTokenizer, find, load
from engine.tokenizers.base import digest_of


def test_saved_and_loaded_is_the_same(tokenizer: Tokenizer, tmp_path: Path, prose: str) -> None:
    tokenizer.save(tmp_path / "t")
    loaded = load(tmp_path / "t")
    assert type(loaded) is type(tokenizer)
    assert loaded.digest == tokenizer.digest
    assert loaded.vocab_size == tokenizer.vocab_size
    assert loaded.special_tokens == tokenizer.special_tokens
    assert loaded.encode(prose[:5_000]) == tokenizer.encode(prose[:5_000])
    assert not [path for path in (tmp_path / "t").iterdir() if path.name.endswith(".tmp")]


def changed(tokenizer: Tokenizer, directory: Path, **fields: Any) -> Path:
    """The tokenizer saved with `fields` changed, and a digest that fits them."""
    tokenizer.save(directory)
    path = directory / "tokenizer.json"
    content = json.loads(path.read_text()) | fields
    if "digest" not in fields:
        settings = {name: content[name] for name in tokenizer.settings() if name in content}
        content["digest"] = digest_of(content["kind"], settings)
    path.write_text(json.dumps(content))
    return directory


BPE = BpeTokenizer([(104, 105), (256, 33)])
WORD = WordTokenizer([" ", "a", " b"])


@pytest.mark.parametrize(
    ("tokenizer", "fields", "said"),
    [
        (BPE, {"kind": "wordpiece"}, "field 'kind' is 'wordpiece'"),
        (BPE, {"kind": ["bpe"]}, "field 'kind' is not a text"),
        (BPE, {"format": 2}, "field 'format' is 2"),
        (BPE, {"format": True}, "field 'format' is not a whole number"),
        (BPE, {"vocab_size": 300}, "field 'vocab_size' is 300"),
        (BPE, {"vocab_size": 259.0}, "field 'vocab_size' is not a whole number"),
        (BPE, {"digest": "0" * 64}, "field 'digest' does not fit"),
        (BPE, {"split": "(a+)+$"}, "field 'split' is"),
        (BPE, {"merges": "ab"}, "field 'merges' is not a list"),
        (BPE, {"merges": [[104, 105, 1]]}, "field 'merges', entry 0: not a pair"),
        (BPE, {"merges": [[104, True]]}, "field 'merges', entry 0: not a pair"),
        (BPE, {"merges": [[104, 1e300]]}, "field 'merges', entry 0: not a pair"),
        (BPE, {"merges": [[104, 256]]}, "entry 0: names an id that no earlier entry makes"),
        (BPE, {"merges": [[104, -1]]}, "entry 0: names an id that no earlier entry makes"),
        (BPE, {"merges": [[104, 105], [104, 105]]}, "'merges' makes a token twice"),
        (
            BPE,
            {"merges": [[97, 97], *([256 + i, 256 + i] for i in range(63))]},
            "grow beyond all bounds",
        ),
        (WORD, {"pieces": [" ", "a", "a"]}, "field 'pieces' has an entry twice"),
        (WORD, {"pieces": [" ", ""]}, "field 'pieces' has an entry that is no text, or empty"),
        (WORD, {"pieces": [" ", 7]}, "field 'pieces' has an entry that is no text"),
        (WORD, {"pieces": ["a"]}, "field 'pieces' has no single space"),
        (WORD, {"pieces": [" ", "\ud800"]}, "field 'pieces' has a surrogate"),
    ],
)
def test_a_bad_field_is_named(
    tmp_path: Path, tokenizer: Tokenizer, fields: dict[str, Any], said: str
) -> None:
    directory = changed(tokenizer, tmp_path, **fields)
    with pytest.raises(TokenizerError) as caught:
        load(directory)
    assert said in caught.value.title
    assert str(directory / "tokenizer.json") in caught.value.title


@pytest.mark.parametrize(
    ("characters", "said"),
    [("", "is empty"), ("aba", "a character twice"), ("\ud800", "a surrogate"), (3, "not a text")],
)
def test_bad_characters_are_named(
    tokenizers: dict[str, Tokenizer], tmp_path: Path, characters: object, said: str
) -> None:
    with pytest.raises(TokenizerError, match=f"field 'characters'.*{said}"):
        load(changed(tokenizers["char"], tmp_path, characters=characters))


@pytest.mark.parametrize("name", ["format", "kind", "vocab_size", "digest", "split", "merges"])
def test_a_missing_field_is_named(tmp_path: Path, name: str) -> None:
    BPE.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    del content[name]
    path.write_text(json.dumps(content))
    with pytest.raises(TokenizerError, match=f"field '{name}' is missing"):
        load(tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b'{"format": 1, "kind": "bpe", "merges": [[104',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"format": ' + b"9" * 10_000 + b"}",
        b"NaN",
    ],
    ids=["empty", "list", "null", "truncated", "utf-16", "deep", "huge number", "NaN"],
)
def test_what_is_no_tokenizer_at_all_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        load(tmp_path)


def test_damaged_bytes_never_crash_and_never_pass(
    tokenizers: dict[str, Tokenizer], tmp_path: Path
) -> None:
    """One changed byte anywhere is refused, or changes nothing that matters (white space)."""
    tokenizer = tokenizers["bpe"]
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    sound = path.read_bytes()
    drawn = random.Random(7)
    refused = 0
    for _ in range(200):
        damaged = bytearray(sound)
        damaged[drawn.randrange(len(sound))] = drawn.randrange(256)
        path.write_bytes(damaged)
        try:
            assert load(tmp_path).digest == tokenizer.digest
        except TokenizerError:
            refused += 1
    assert refused > 50


def test_an_absent_folder_a_folder_as_file_and_a_pipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"there is no tokenizer\.json in"):
        load(tmp_path / "absent")
    (tmp_path / "a" / "tokenizer.json").mkdir(parents=True)
    with pytest.raises(TokenizerError, match=r"there is no tokenizer\.json in"):
        load(tmp_path / "a")
    (tmp_path / "b").mkdir()
    os.mkfifo(tmp_path / "b" / "tokenizer.json")  # reading it would wait for ever
    with pytest.raises(TokenizerError, match=r"there is no tokenizer\.json in"):
        load(tmp_path / "b")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TokenizerError, match="cannot write the tokenizer to"):
        ByteTokenizer().save(tmp_path / "file" / "t")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A lab with one run, called first."""
    BPE.save(tmp_path / "checkpoints" / "first" / "tokenizer")
    return Lab(tmp_path)


@pytest.mark.parametrize(
    "reference",
    [
        lambda lab: "first",
        lambda lab: str(lab.checkpoints / "first"),
        lambda lab: str(lab.checkpoints / "first" / "tokenizer"),
    ],
    ids=["run", "run's folder", "folder"],
)
def test_a_tokenizer_is_found_by_run_and_folder(lab: Lab, reference: Callable[[Lab], str]) -> None:
    assert find(lab, reference(lab)).digest == BPE.digest


def test_a_kind_without_training_is_found_by_name(lab: Lab) -> None:
    assert find(lab, "bytes").kind == "bytes"
    assert find(lab, "gpt2").kind == "gpt2"


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("bpe", "has to be trained first"),
        ("frist", r"no tokenizer called 'frist'.*did you mean 'first'"),
        ("byte", "did you mean 'bytes'"),
    ],
)
def test_what_is_not_found_comes_with_a_way_on(lab: Lab, reference: str, said: str) -> None:
    with pytest.raises(TokenizerError) as caught:
        find(lab, reference)
    assert re.search(said, str(caught.value))
