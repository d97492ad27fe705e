"""Tokenizers that are written: `AutoTokenizer` gives our ids, and they come back as they were."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import regex
import tokenizers as hf
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from engine.errors import TokenizerError
from engine.exchange.tokenizer_document import document_of
from engine.exchange.tokenizers import read_tokenizer, write_tokenizer
from engine.tokenizers import BpeTokenizer, Tokenizer
from engine.tokenizers.split import SPLITS, Split
from tests.engine.exchange.tokenizer_samples import (
    HARD,
    KNOWN,
    OURS,
    PROSE,
    QUICK,
    TEXTS,
)


@pytest.mark.parametrize("kind", OURS)
def test_the_written_folder_gives_our_ids_and_text(
    kind: str, ours: dict[str, Tokenizer], written: dict[str, tuple[Path, Any]]
) -> None:
    """Real text, whitespace at both ends, and a special token's name in the text."""
    tokenizer, loaded = ours[kind], written[kind][1]
    assert loaded.is_fast
    assert loaded.eos_token_id == loaded.bos_token_id == tokenizer.eot_id
    assert len(loaded) == tokenizer.vocab_size
    for text in (PROSE, *(HARD if kind != "char" else ("", "a\n\n  ", "<|endoftext|>"))):
        ids = tokenizer.encode(text)
        assert loaded.encode(text) == ids
        assert loaded.decode(ids) == text
    if tokenizer.eot_id is not None:
        ended = [*tokenizer.encode("end"), tokenizer.eot_id]
        assert loaded.decode(ended, skip_special_tokens=True) == "end"
        assert loaded.decode(ended) == "end<|endoftext|>"


@pytest.mark.parametrize("kind", ["bytes", "bpe", "gpt2"])
@given(text=TEXTS)
@QUICK
def test_any_text_gives_our_ids(
    kind: str, ours: dict[str, Tokenizer], written: dict[str, tuple[Path, Any]], text: str
) -> None:
    """tiktoken's regular expressions and theirs differ in syntax; they must not in effect."""
    assert written[kind][1].encode(text) == ours[kind].encode(text)


def test_a_character_outside_the_vocabulary_is_refused_by_both(
    ours: dict[str, Tokenizer], written: dict[str, tuple[Path, Any]]
) -> None:
    with pytest.raises(TokenizerError):
        ours["char"].encode("\u0416")
    with pytest.raises(Exception, match="UNK"):
        written["char"][1].encode("\u0416")


def test_words_are_refused_with_the_reason(ours: dict[str, Tokenizer], tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="space before <unk>"):
        write_tokenizer(ours["word"], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", OURS)
def test_our_own_come_back_as_they_were(
    kind: str, ours: dict[str, Tokenizer], written: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    """Also when transformers has written the folder anew."""
    directory, loaded = written[kind]
    assert read_tokenizer(directory).digest == ours[kind].digest
    loaded.save_pretrained(tmp_path)
    again = read_tokenizer(tmp_path)
    assert (again.kind, again.digest) == (kind, ours[kind].digest)


@pytest.mark.parametrize("change", ["merge", "pattern", "end", "vocab_size"])
def test_what_is_nearly_ours_is_not_taken_for_it(
    change: str, ours: dict[str, Tokenizer], tmp_path: Path
) -> None:
    tokenizer = ours["bpe"]
    write_tokenizer(tokenizer, tmp_path)
    path = tmp_path / "tokenizer.json"
    document = json.loads(path.read_text())
    if change == "merge":
        merges = document["model"]["merges"]
        merges[0], merges[1] = merges[1], merges[0]
    elif change == "pattern":
        split = document["pre_tokenizer"]["pretokenizers"][0]
        written = split["pattern"]["Regex"]
        split["pattern"]["Regex"] = re.sub(r"\|\\p\{N\}[^|]*", r"|\\p{N}{1,3}", written)
        assert split["pattern"]["Regex"] != written
    elif change == "end":
        (tmp_path / "config.json").write_text('{"eos_token_id": 65}')
    else:
        (tmp_path / "config.json").write_text('{"vocab_size": 1024}')
    path.write_text(json.dumps(document))
    again = read_tokenizer(tmp_path)
    assert again.kind == "hf"
    assert again.eot_id == (65 if change == "end" else tokenizer.eot_id)
    assert again.vocab_size == (1024 if change == "vocab_size" else tokenizer.vocab_size)
    reference = AutoTokenizer.from_pretrained(tmp_path)
    assert again.encode(PROSE[:5000]) == reference.encode(PROSE[:5000])


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
@given(text=st.lists(KNOWN | st.sampled_from(["  ", "\n\n", "\r\n", "'LL"])).map("".join))
@QUICK
def test_the_pieces_are_ours_whatever_the_merges(split: Split, text: str) -> None:
    """A rule that differs where a small vocabulary merges nothing would differ elsewhere."""
    text = f"{text} 1234567 {text}"
    document = document_of(BpeTokenizer([(104, 105)], split))
    splitter = hf.Tokenizer.from_str(json.dumps(document)).pre_tokenizer
    pieces = [text[start:end] for _, (start, end) in splitter.pre_tokenize_str(text)]
    assert pieces == regex.findall(split.pattern, text)
