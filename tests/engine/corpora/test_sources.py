"""Reading text: every format, exactly, in blocks; and what is wrong is named to the byte."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest

from engine.corpora import add, documents, interpreter, sources
from engine.corpora.registry import CorpusEntry
from engine.corpora.sources import pieces
from engine.data import split
from engine.errors import CorpusError
from engine.lab import Lab


def files(*paths: Path, field: str = "text") -> CorpusEntry:
    return CorpusEntry("it", "files", field=field, paths=paths, path=paths[0], available=True)


def texts(*paths: Path, field: str = "text") -> list[str]:
    """Whole documents."""
    found, held = [], ""
    for piece in pieces(files(*paths, field=field)):
        held += piece.text
        if piece.ends:
            found.append(held)
            held = ""
    assert not held, "the last piece must end its document"
    return found


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize(
    "text",
    [
        "a",
        "\n",
        "no line end",
        "line\nline\r\n\n",
        "äöü€😀\n" * 9,
        "x" * 200,
        "\ufeffa",
        "a\n\ufeff",
    ],
)
def test_blocks_give_the_file_back_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, text: str
) -> None:
    """A character or a line that straddles two blocks is neither lost nor doubled."""
    monkeypatch.setattr(sources, "BLOCK", block)
    path = tmp_path / "a.txt"
    path.write_bytes(("start " + text).encode())
    assert texts(path) == ["start " + text]


def test_a_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffhello".encode())
    assert texts(path) == ["hello"]


@pytest.mark.parametrize("block", [1, 4, 1 << 20])
@pytest.mark.parametrize(
    ("content", "offset"),
    [
        (b"abcdef\xff\xfe", 6),
        (b"ab\xc3\xa4\xc3(", 4),
        (b"abc\xe2\x82", 3),
        (b"\xef\xbb\xbfa\xff", 4),
    ],
)
def test_invalid_utf8_is_named_by_its_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, content: bytes, offset: int
) -> None:
    monkeypatch.setattr(sources, "BLOCK", block)
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=f"not UTF-8 text: byte offset {offset} ") as caught:
        texts(path)
    assert str(path) in caught.value.title


@pytest.mark.parametrize("block", [4, 1 << 20])
def test_a_nul_byte_is_named_by_its_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(sources, "BLOCK", block)
    path = tmp_path / "a.txt"
    path.write_bytes(b"twelve bytes\0")
    with pytest.raises(CorpusError, match="NUL byte at byte offset 12"):
        texts(path)


@pytest.mark.parametrize("zipped", [False, True])
def test_json_lines(tmp_path: Path, zipped: bool) -> None:
    """One document a line under the named field; empty texts and blank lines are none."""
    rows = [{"body": "one\n"}, {"body": ""}, {"body": "zw\u00f6lf", "id": 1}, {"body": "\ud800!"}]
    content = "\n\n".join(json.dumps(row) for row in rows).encode()
    path = tmp_path / ("a.jsonl.gz" if zipped else "a.jsonl")
    path.write_bytes(gzip.compress(content) if zipped else content)
    assert texts(path, field="body") == ["one\n", "zw\u00f6lf", "?!"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2 is not JSON"),
        ('{"txt": 1}', "line 2 has no field 'text'"),
        ("[1]", "line 2 has no field 'text'"),
        ('{"text": 1}', "line 2: field 'text' is not a text"),
        ("[" * 100_000, "line 2 is not JSON"),
    ],
)
def test_a_bad_json_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n' + line)
    with pytest.raises(CorpusError, match=words):
        texts(path)


def test_gzip_and_a_broken_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    whole = gzip.compress(b"hello\n" * 1000)
    path.write_bytes(whole)
    assert texts(path) == ["hello\n" * 1000]
    path.write_bytes(whole[:-20])
    with pytest.raises(CorpusError, match="cannot read"):
        texts(path)


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"body": ["one", None, "two"], "n": [1, 2, 3]}), path)
    assert texts(path, field="body") == ["one", "two"]
    with pytest.raises(CorpusError, match="no column 'text'"):
        texts(path)
    with pytest.raises(CorpusError, match="'n' holds int64"):
        texts(path, field="n")
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(CorpusError, match="as Parquet"):
        texts(path)


def test_parquet_without_pyarrow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(CorpusError, match="needs pyarrow") as caught:
        texts(path)
    assert "tui-lab[parquet]" in caught.value.hint


def test_a_folder_gives_its_texts_by_name_and_leaves_out_the_rest(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("hidden")
    (tmp_path / "b" / "2.txt").write_text("second")
    (tmp_path / "1.md").write_text("first")
    (tmp_path / "0.txt").write_text("")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "3.jsonl").write_text('{"text": "json"}')
    assert texts(tmp_path) == ["first", "json", "second"]


def test_nothing_to_learn_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for content in (b"", b" \n\n "):
        path.write_bytes(content)
        with pytest.raises(CorpusError, match="corpus 'it' is empty"):
            texts(path)


def test_a_file_that_has_gone_since_is_named(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text")
    add(lab, "gone", [path])
    path.unlink()
    with pytest.raises(CorpusError, match="is not there"):
        list(documents(lab, "gone"))


def test_a_corpus_to_fetch_says_how(lab: Lab) -> None:
    with pytest.raises(CorpusError, match="not here yet") as caught:
        list(documents(lab, "tinyshakespeare"))
    assert "tui-lab corpus fetch tinyshakespeare" in caught.value.hint


def test_the_help_topics_are_clean_and_about_half_a_megabyte(lab: Lab) -> None:
    topics = list(documents(lab, "python-docs"))
    assert len(topics) > 60
    assert 350_000 < sum(map(len, topics)) < 900_000
    assert any("context manager" in topic for topic in topics)
    for topic in topics:
        assert topic.isprintable() or not set(topic) & set("\0\t\r\x1b")
        assert topic == topic.strip("\n") + "\n"
        assert not any(line != line.rstrip() for line in topic.splitlines())


def test_what_validates_on_the_help_topics_is_not_in_the_training_part() -> None:
    """Some topics are excerpts of others: a tail with copies in the head would flatter the loss."""
    topics = interpreter.help_topics()
    starts = [0]
    for topic in topics[:-1]:
        starts.append(starts[-1] + len(topic))
    total = sum(map(len, topics))
    import numpy as np

    cut = split(total, 0.1, 256, np.array(starts))
    first = starts.index(cut)
    head = {part for topic in topics[:first] for part in interpreter._paragraphs(topic)}
    tail = [part for topic in topics[first:] for part in interpreter._paragraphs(topic)]
    copied = sum(len(part) for part in tail if part in head)
    assert 0.05 < (total - cut) / total < 0.15
    assert copied <= 0.01 * sum(map(len, tail))


def test_the_library_is_its_own_source_without_tests() -> None:
    names = [path.relative_to(interpreter.library()) for path in interpreter.library_files()]
    assert len(names) > 400
    assert not any({"test", "tests", "site-packages"} & set(name.parts) for name in names)
    assert Path("json/decoder.py") in names
    assert interpreter.library_bytes() > 5_000_000
