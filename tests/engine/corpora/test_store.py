"""Prepared folders: never half there, judged before they are used, and mended."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine import stream
from engine.corpora import get_tokenizer, open_prepared, prepare, shards, store
from engine.errors import CorpusError
from engine.lab import Lab
from tests.engine.corpora.conftest import left_over


@pytest.mark.parametrize("damage", ["short", "gone", "documents", "manifest", "numbers"])
def test_damage_is_noticed_and_mended(three: Lab, damage: str) -> None:
    """Opening names what is wrong; preparing again builds it anew."""
    tokenizer = get_tokenizer(three, "three", "bytes", 0)
    prepared = prepare(three, "three", tokenizer)
    shard, manifest = prepared.path / "shard-00000.bin", prepared.path / "manifest.json"
    if damage == "short":
        os.truncate(shard, 100)
    elif damage == "gone":
        shard.unlink()
    elif damage == "documents":
        (prepared.path / "documents.bin").write_bytes(b"")
    elif damage == "manifest":
        manifest.write_text(manifest.read_text()[:50])
    else:
        manifest.write_text(manifest.read_text().replace('"n_tokens"', '"n_token"'))
    with pytest.raises(CorpusError, match="is damaged"):
        open_prepared(prepared.path)
    again = prepare(three, "three", tokenizer)
    assert again == prepared
    assert again.verify() == []
    assert left_over(three) == []


def flip(path: Path, at: int = 100, *, quietly: bool = False) -> None:
    """One bit of a file, in place; `quietly` with its old time of change put back."""
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    if quietly:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.fixture
def nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every corpus counts as too large for memory."""
    monkeypatch.setattr(stream, "HELD_BYTES", 0)


def test_a_flipped_bit_is_found_before_the_first_step(three: Lab) -> None:
    """By reading it for training, which is refused; and mended by the next start."""
    tokenizer = get_tokenizer(three, "three", "bytes", 0)
    prepared = prepare(three, "three", tokenizer)
    flip(prepared.path / "shard-00000.bin", quietly=True)
    assert prepared.verify() == ["shard-00000.bin: its content is not what was written"]
    with pytest.raises(CorpusError, match="its content is not what was written"):
        open_prepared(prepared.path).tokens()
    again = prepare(three, "three", tokenizer)
    assert again == prepared
    assert again.verify() == []
    assert left_over(three) == []


@pytest.mark.parametrize("held", [True, False])
def test_a_flipped_bit_in_the_document_starts_is_mended(
    three: Lab, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    """They are read whatever the size of the shards is, and must not stop every start."""
    tokenizer = get_tokenizer(three, "three", "bytes", 0)
    prepared = prepare(three, "three", tokenizer)
    monkeypatch.setattr(stream, "HELD_BYTES", prepared.size + 1 if held else 100)
    documents = prepared.path / "documents.bin"
    written = documents.read_bytes()
    flip(documents, at=1, quietly=True)
    with pytest.raises(CorpusError, match="its content is not what was written"):
        open_prepared(prepared.path).document_starts()
    assert prepare(three, "three", tokenizer) == prepared
    assert documents.read_bytes() == written


def test_large_shards_are_hashed_when_their_times_or_the_caller_ask_for_it(
    three: Lab, nothing_is_held: None
) -> None:
    tokenizer = get_tokenizer(three, "three", "bytes", 0)
    prepared = prepare(three, "three", tokenizer)
    shard = prepared.path / "shard-00000.bin"
    flip(shard)
    with pytest.raises(CorpusError, match="changed while in use"):
        prepared.tokens().slice(0, 10)
    assert prepare(three, "three", tokenizer).verify() == []
    flip(shard, quietly=True)
    assert prepare(three, "three", tokenizer).verify() == [], "the inode has a time of its own"
    flip(shard, quietly=True)
    os.utime(prepared.path / "manifest.json")
    assert prepare(three, "three", tokenizer).verify(), "a failing disk tells no times"
    assert prepare(three, "three", tokenizer, check=True).verify() == []


def test_a_copied_lab_is_hashed_once(
    three: Lab, nothing_is_held: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy's times are in any order: they say nothing, and then the content does."""
    tokenizer = get_tokenizer(three, "three", "bytes", 0)
    prepared = prepare(three, "three", tokenizer)
    time.sleep(0.05)  # the clock of file systems goes in steps
    os.utime(prepared.path / "shard-00000.bin")
    read: list[Path] = []
    hashed = shards.file_digest

    def watched(path: Path, *rest: object) -> str:
        read.append(path)
        return hashed(path, *rest)

    monkeypatch.setattr(shards, "file_digest", watched)
    for _ in range(2):
        found = prepare(three, "three", tokenizer)
        assert found == prepared
        assert found.tokens().slice(0, 5).size == 5
    assert [path.name for path in read] == ["shard-00000.bin", "documents.bin"]


def test_large_shards_that_change_under_a_reader_are_an_error_and_mended(
    three: Lab, nothing_is_held: None
) -> None:
    """Whoever has the old ones open is told, whatever takes their place."""
    tokenizer = get_tokenizer(three, "three", "bytes", 0)
    prepared = prepare(three, "three", tokenizer)
    reading = prepared.tokens()
    flip(prepared.path / "shard-00000.bin")
    again = prepare(three, "three", tokenizer)
    with pytest.raises(CorpusError, match="changed while in use"):
        reading.slice(0, 10)
    assert again.tokens().slice(0, 10).size == 10


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "O"},
        {"n_documents": -3},
        {"n_tokens": 10**18},
        {"corpus": 3},
        {"format": 0},
        {"shards": [{"file": "../../../three.jsonl", "tokens": 1, "sha256": ""}], "n_tokens": 1},
    ],
)
def test_a_manifest_that_nobody_wrote_here_is_refused(three: Lab, change: dict) -> None:
    """Though its own hash is right; and whatever is no manifest at all."""
    prepared = prepare(three, "three", get_tokenizer(three, "three", "bytes", 0))
    manifest = prepared.path / "manifest.json"
    values = json.loads(manifest.read_text()) | change
    values["sha256"] = shards._seal({k: v for k, v in values.items() if k != "sha256"})
    for text in (json.dumps(values), "[" * 5000, "[]", "7", "{}"):
        manifest.write_text(text)
        with pytest.raises(CorpusError, match="is damaged"):
            open_prepared(prepared.path)


def test_a_count_that_changed_in_the_manifest_is_noticed(three: Lab) -> None:
    prepared = prepare(three, "three", get_tokenizer(three, "three", "bytes", 0))
    manifest = prepared.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"n_bytes": ', '"n_bytes": 1'))
    with pytest.raises(CorpusError, match="its content is not what was written"):
        open_prepared(prepared.path)


def test_a_disk_that_is_full_leaves_nothing(three: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    tokenizer = get_tokenizer(three, "three", "bytes", 0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CorpusError, match="No space left") as caught:
            prepare(three, "three", tokenizer)
    assert "room on the disk" in caught.value.hint
    assert left_over(three) == []
    assert prepare(three, "three", tokenizer).verify() == []


def test_what_a_killed_process_left_is_swept(three: Lab) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1)
    kept = three.corpus / "prepared"
    dead = kept / f"{store.temporary_prefix(int(gone.stdout))}x"
    alive = kept / f"{store.temporary_prefix()}y"
    for path in (dead, alive):
        path.mkdir(parents=True)
    prepare(three, "three", get_tokenizer(three, "three", "bytes", 0))
    assert left_over(three) == [alive.name]


def test_many_at_once_make_one(three: Lab) -> None:
    """Two runs that start together over a new corpus both get whole shards."""
    tokenizer = get_tokenizer(three, "three", "bytes", 0)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: prepare(three, "three", tokenizer), range(8)))
    assert all(prepared == found[0] for prepared in found)
    assert found[0].verify() == []
    assert left_over(three) == []


def test_many_at_once_mend_one(three: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """None moves away what another just put there, however slow the disk is."""
    tokenizer, rename = get_tokenizer(three, "three", "bytes", 0), Path.rename

    def slow(path: Path, target: Path) -> Path:
        done = rename(path, target)
        time.sleep(0.02)
        return done

    monkeypatch.setattr(Path, "rename", slow)
    flip(prepare(three, "three", tokenizer).path / "shard-00000.bin")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: prepare(three, "three", tokenizer), range(4)))
    assert [prepared.verify() for prepared in found] == [[]] * 4
    assert left_over(three) == []
