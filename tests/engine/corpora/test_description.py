"""Statistics against counts made by hand, and the preview against the tokenizer itself."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from engine.corpora import add, get_tokenizer, prepare, preview, sources, statistics
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


@pytest.mark.parametrize("prepared", [False, True])
def test_preview_is_what_training_sees(three: Lab, prepared: bool) -> None:
    """From the shards, or from the text alone, without writing anything."""
    tokenizer = get_tokenizer(three, "three", "bytes", 0)
    if prepared:
        prepare(three, "three", tokenizer)
    shown = preview(three, "three", tokenizer, 0, 1000)
    assert [token for token, _ in shown[: len(TEXTS[0])]] == list(TEXTS[0].encode())
    assert shown[len(TEXTS[0])] == (256, "<|endoftext|>")
    assert shown[len(TEXTS[0]) + 1].text == "\\xc3", "half a character is shown as its byte"
    assert preview(three, "three", tokenizer, 5, 2) == shown[5:7]
    with pytest.raises(CorpusError, match="has no token 1000"):
        preview(three, "three", tokenizer, 1000)
    assert [path for path in (three.corpus / "prepared").iterdir() if path.is_dir()] == (
        [prepare(three, "three", tokenizer).path] if prepared else []
    )


def test_preview_reads_no_further_than_it_must(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look into a corpus of gigabytes must not take minutes: what is broken far on is not met."""
    source = tmp_path / "long.txt"
    source.write_bytes(b"a line\n" * 5_000 + b"\xff")
    monkeypatch.setattr("engine.corpora.addition.WHOLE", 100)
    monkeypatch.setattr("engine.corpora.sources.PEEK", 100)
    monkeypatch.setattr("engine.corpora.sources.BLOCK", 100)
    monkeypatch.setattr("engine.corpora.preparation.CHUNK", 200)
    add(lab, "long", [source])
    tokenizer = get_tokenizer(lab, "long", "bytes", 0)
    assert "".join(text for _, text in preview(lab, "long", tokenizer, 7, 7)) == "a line\n"
    with pytest.raises(CorpusError, match="byte offset 35000"):
        preview(lab, "long", tokenizer, 34_999, 9)
