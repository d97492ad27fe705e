"""Statistics against counts made by hand, and the preview against the tokenizer itself."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from engine.corpora import add, get_tokenizer, preview, sources, statistics
from engine.errors import CorpusError
from engine.lab import Lab

TEXTS = ["one two\nthree\n", "äö €", "one  one "]


@pytest.fixture
def three(lab: Lab, tmp_path: Path) -> Lab:
    source = tmp_path / "three.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    add(lab, "three", [source])
    return lab


def test_counts(three: Lab) -> None:
    counted = statistics(three, "three")
    assert counted.documents == 3
    assert counted.bytes == sum(len(text.encode()) for text in TEXTS)
    assert counted.characters == sum(map(len, TEXTS))
    assert counted.words == sum(len(text.split()) for text in TEXTS)
    assert counted.lines == 4
    assert (counted.shortest, counted.median, counted.longest) == (4, 9, 14)
    assert counted.distinct_characters == len(set("".join(TEXTS)))
    assert dict(counted.frequent_characters)["e"] == "".join(TEXTS).count("e")
    assert counted.tokens is None


@pytest.mark.parametrize("block", [1, 2, 5, 1 << 20])
def test_counts_do_not_depend_on_how_the_text_is_read(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """A word or a line that straddles two blocks counts once."""
    text = "Some words,  here\nand\n\nthere\tagain without a line's end"
    source = tmp_path / "a.txt"
    source.write_text(text)
    add(lab, "a", [source])
    monkeypatch.setattr(sources, "BLOCK", block)
    counted = statistics(lab, "a")
    assert (counted.words, counted.lines) == (len(text.split()), len(text.splitlines()))
    assert (counted.documents, counted.longest) == (1, len(text))


def test_token_counts(three: Lab) -> None:
    tokenizer = get_tokenizer(three, "three", "char", 0)
    counted = statistics(three, "three", tokenizer)
    whole = "\n".join(TEXTS)
    assert counted.tokens == len(whole)
    assert counted.vocab_used == counted.vocab_size == len(set(whole))
    assert counted.bytes_per_token == pytest.approx(len(whole.encode()) / len(whole))
    counts = Counter(whole)
    assert [times for _, _, times in counted.frequent] == sorted(counts.values(), reverse=True)
    assert all(counts[text] == times for _, text, times in counted.frequent)


def test_preview_is_what_training_sees(three: Lab) -> None:
    tokenizer = get_tokenizer(three, "three", "bytes", 0)
    shown = preview(three, "three", tokenizer, 0, 1000)
    assert [token for token, _ in shown[: len(TEXTS[0])]] == list(TEXTS[0].encode())
    assert shown[len(TEXTS[0])] == (256, "<|endoftext|>")
    assert shown[len(TEXTS[0]) + 1].text == "\\xc3", "half a character is shown as its byte"
    assert preview(three, "three", tokenizer, 5, 2) == shown[5:7]
    with pytest.raises(CorpusError, match="has no token 1000"):
        preview(three, "three", tokenizer, 1000)
