"""Shards: exact, the same for any number of workers, kept, mended, and never half there."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from engine import tokenizers
from engine.corpora import (
    add,
    digest,
    documents,
    find_corpus,
    find_prepared,
    find_tokenizer,
    get_tokenizer,
    open_prepared,
    preparation,
    prepare,
    sources,
)
from engine.errors import CorpusError, TokenizerError
from engine.lab import Lab
from tests.engine.corpora.conftest import TEXTS, left_over


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "CHUNK", 200)
    monkeypatch.setattr(sources, "BLOCK", 64)


@pytest.mark.parametrize("kind", ["bytes", "char", "word", "bpe"])
def test_shards_hold_each_document_and_what_separates_them(
    three: Lab, small_chunks: None, kind: str
) -> None:
    """Cutting, batching and sharding change nothing against encoding document by document."""
    tokenizer = get_tokenizer(three, "three", kind, 300)
    separator = [tokenizer.eot_id] if tokenizer.eot_id is not None else tokenizer.encode("\n")
    expected, starts = [], []
    for text in TEXTS:
        expected += separator if starts else []
        starts.append(len(expected))
        expected += tokenizer.encode(text * 40)
    prepared = prepare(three, "three", tokenizer, workers=3, shard_tokens=100)
    assert len(prepared.shards) == -(-len(expected) // 100)
    assert prepared.tokens().slice(0, 10**9).tolist() == expected
    assert prepared.document_starts().slice(0, 99).tolist() == starts
    assert prepared.n_documents == 3
    assert prepared.verify() == []
    text_bytes = sum(len(text.encode()) * 40 for text in TEXTS)
    assert prepared.n_bytes == text_bytes + (2 if tokenizer.eot_id is None else 0)


@pytest.mark.parametrize("kind", ["bytes", "char", "bpe"])
def test_byte_counts_agree_with_the_tokens(three: Lab, kind: str) -> None:
    """Bits per byte divides by these bytes: they must be those that the tokens stand for."""
    tokenizer = get_tokenizer(three, "three", kind, 300)
    prepared = prepare(three, "three", tokenizer)
    tokens = prepared.tokens().slice(0, prepared.n_tokens)
    assert prepared.n_bytes == tokenizer.byte_lengths()[tokens].sum()


def test_a_long_file_is_cut_without_a_trace_for_any_number_of_workers(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One document of many chunks: the same files for 1, 2 and 5 workers, and equal to one call."""
    text = "".join(documents(lab, "python-docs"))
    source = tmp_path / "long.txt"
    source.write_text(text)
    add(lab, "long", [source])
    tokenizer = get_tokenizer(lab, "long", "bpe", 400)
    monkeypatch.setattr(preparation, "CHUNK", 5_000)
    monkeypatch.setattr(sources, "BLOCK", 3_000)
    found = []
    for workers in (1, 2, 5):
        other = Lab.init(tmp_path / f"lab{workers}")
        add(other, "long", [source])
        prepared = prepare(other, "long", tokenizer, workers=workers)
        found.append((prepared.digest, prepared.shards, prepared.documents_sha256))
    assert found[0] == found[1] == found[2]
    np.testing.assert_array_equal(
        prepared.tokens().slice(0, prepared.n_tokens), tokenizer.encode_array(text)
    )


def test_a_small_vocabulary_takes_two_bytes_a_token(three: Lab) -> None:
    prepared = prepare(three, "three", tokenizers.build("bytes", lambda: (), 0))
    assert prepared.dtype == "<u2"
    assert prepared.size == 2 * prepared.n_tokens


def test_prepared_once(three: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time nothing is read: neither text nor, to know that it is unchanged, bytes."""
    tokenizer = get_tokenizer(three, "three", "bytes", 0)
    assert find_prepared(three, "three", tokenizer) is None
    first = prepare(three, "three", tokenizer)
    monkeypatch.setattr(preparation, "pieces", None)
    monkeypatch.setattr(digest, "file_digest", None)
    assert prepare(three, "three", tokenizer) == first
    assert find_prepared(three, "three", tokenizer) == first


def test_a_changed_source_is_prepared_anew_and_the_old_shards_stay(three: Lab) -> None:
    """A run that goes on over the old shards must not lose them."""
    tokenizer = get_tokenizer(three, "three", "bytes", 0)
    before = prepare(three, "three", tokenizer)
    source = three.root.parent / "three.jsonl"
    source.write_text(source.read_text().replace("first", "FIRST"))
    after = prepare(three, "three", tokenizer)
    assert after.corpus_digest != before.corpus_digest
    assert after.path != before.path
    assert b"FIRST" in after.tokens().slice(0, after.n_tokens).astype(np.uint8).tobytes()
    assert open_prepared(before.path) == before


def test_the_same_text_elsewhere_has_the_same_digest(three: Lab, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "copy.jsonl"
    copy.parent.mkdir()
    copy.write_bytes((three.root.parent / "three.jsonl").read_bytes())
    add(three, "copy", [copy])
    tokenizer = get_tokenizer(three, "three", "bytes", 0)
    assert prepare(three, "copy", tokenizer).digest == prepare(three, "three", tokenizer).digest


def test_a_source_that_changes_meanwhile_is_refused(three: Lab) -> None:
    source = three.root.parent / "three.jsonl"

    def disturb(what: str, done: int, total: int) -> None:
        if what == "tokenizing":
            source.write_text('{"text": "other"}\n')

    with pytest.raises(CorpusError, match="changed while"):
        prepare(three, "three", get_tokenizer(three, "three", "bytes", 0), progress=disturb)
    assert left_over(three) == []


def test_a_file_written_to_just_now_is_waited_for(
    three: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another write within the clock's tick would leave the same times, and be hidden for ever."""
    source, entry = three.root.parent / "three.jsonl", find_corpus(three, "three")
    slept = []

    def write_meanwhile(seconds: float) -> None:
        slept.append(round(seconds, 6))
        source.write_text('{"text": "other"}\n')

    written = source.stat().st_ctime_ns
    monkeypatch.setattr(time, "time_ns", lambda: written + 5_000_000)
    monkeypatch.setattr(time, "sleep", write_meanwhile)
    stamp = digest.source_stamps(entry)[source]
    assert slept == [0.015]
    assert stamp[0] == source.stat().st_size, "stamped after the wait"
    monkeypatch.setattr(time, "time_ns", lambda: source.stat().st_ctime_ns + digest.TICK)
    digest.source_stamps(entry)
    assert len(slept) == 1


@pytest.mark.parametrize("stage", ["reading", "tokenizing"])
def test_cancelled_at_any_stage_leaves_nothing(three: Lab, small_chunks: None, stage: str) -> None:
    def cancel(what: str, done: int, total: int) -> None:
        if what == stage:
            raise KeyboardInterrupt

    source = three.root.parent / "three.jsonl"
    os.utime(source, ns=(1, 1))  # its hash is not remembered any more
    tokenizer = tokenizers.build("bytes", lambda: (), 0)
    with pytest.raises(KeyboardInterrupt):
        prepare(three, "three", tokenizer, progress=cancel)
    kept = three.corpus / "prepared"
    assert not [path for path in kept.glob("*") if path.is_dir()]


def test_progress_ends_at_the_whole(three: Lab) -> None:
    told: list[tuple[str, int, int]] = []
    prepare(
        three,
        "three",
        get_tokenizer(three, "three", "bytes", 0),
        progress=lambda *args: told.append(args),
    )
    size = (three.root.parent / "three.jsonl").stat().st_size
    assert told[-1] == ("tokenizing", size, size)


def test_a_lab_that_cannot_be_written(three: Lab) -> None:
    (three.corpus / "prepared").rename(three.corpus / "away")
    (three.corpus / "prepared").write_text("a file where the folder should be")
    with pytest.raises(CorpusError, match="cannot write") as caught:
        prepare(three, "three", tokenizers.build("bytes", lambda: (), 0))
    assert caught.value.hint


def test_text_that_the_tokenizer_does_not_know_is_its_error(three: Lab) -> None:
    tokenizer = tokenizers.build("char", lambda: ["abc\n"], 0)
    with pytest.raises(TokenizerError):
        prepare(three, "three", tokenizer)
    assert left_over(three) == []


@pytest.mark.parametrize("kind", ["char", "word", "bpe"])
def test_a_trained_tokenizer_is_kept_and_mended(
    three: Lab, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    assert find_tokenizer(three, "three", kind, 300) is None
    first = get_tokenizer(three, "three", kind, 300)
    folder = next((three.corpus / "prepared" / "tokenizers").iterdir())
    build = tokenizers.build
    monkeypatch.setattr(tokenizers, "build", None)
    assert get_tokenizer(three, "three", kind, 300).digest == first.digest
    assert find_tokenizer(three, "three", kind, 300).digest == first.digest
    monkeypatch.setattr(tokenizers, "build", build)
    (folder / "tokenizer.json").write_text("{")
    assert get_tokenizer(three, "three", kind, 300).digest == first.digest
    assert tokenizers.load(folder).digest == first.digest


def test_a_vocabulary_is_not_kept_from_a_text_that_changed(
    three: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would stand for the old text, which it does not spell."""
    source, build = three.root.parent / "three.jsonl", tokenizers.build

    def disturbed(*values: object) -> object:
        source.write_text('{"text": "other"}\n')
        return build(*values)

    with monkeypatch.context() as patch:
        patch.setattr(tokenizers, "build", disturbed)
        with pytest.raises(CorpusError, match="changed while its vocabulary"):
            get_tokenizer(three, "three", "char", 0)
    assert find_tokenizer(three, "three", "char", 0) is None


def test_memory_stays_flat(tmp_path: Path) -> None:
    """64 MB of text in one file and 64 MB in short lines raise the peak by a fraction of that."""
    script = textwrap.dedent(
        """
        import resource, sys
        from pathlib import Path
        from engine import stream, tokenizers
        from engine.corpora import add, prepare
        from engine.lab import Lab

        root = Path(sys.argv[1])
        lab = Lab.init(root)
        tokenizer = tokenizers.build("bytes", lambda: (), 0)
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        def grown(name, line, lines):
            path = root / name
            with path.open("w") as file:
                for _ in range(lines // 1024):
                    file.write(line * 1024)
            add(lab, name.replace(".", "-"), [path])
            before = peak()
            prepared = prepare(lab, name.replace(".", "-"), tokenizer, workers=2)
            assert prepared.n_bytes > 60e6, prepared
            return peak() - before

        grown_long = grown("long.txt", "a line of thirty-two characters\\n", 2 << 20)
        grown_short = grown("short.jsonl", '{"text": "' + "x" * 1014 + '"}\\n', 64 << 10)
        print(int(max(grown_long, grown_short)))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "lab")],
        stdout=subprocess.PIPE,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert int(done.stdout) < 40, "MB of growth"
