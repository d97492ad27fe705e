"""Numbers from files: exact, flat in memory, and never other than what was written."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import stream as stream_module
from engine.data import Batches, Windows
from engine.errors import CorpusError
from engine.stream import NumberFile, TokenStream

Opening = Callable[[list[NumberFile], str], TokenStream]


def written(folder: Path, *parts: np.ndarray) -> list[NumberFile]:
    files = []
    for number, part in enumerate(parts):
        path = folder / f"shard-{number}"
        path.write_bytes(part.tobytes())
        os.utime(path, ns=(1, 1))  # long ago, as files are that training reads
        files.append(NumberFile(path, len(part), hashlib.sha256(part.tobytes()).hexdigest()))
    return files


def ladder(n: int, shard: int) -> list[np.ndarray]:
    """Numbers that are their own index, in parts of `shard`."""
    tokens = np.arange(n, dtype="<u2")
    return [tokens[i : i + shard] for i in range(0, n, shard)]


@pytest.fixture(params=[TokenStream.open, TokenStream.watch], ids=["held", "watched"])
def opening(request: pytest.FixtureRequest) -> Opening:
    return request.param


@given(st.integers(1, 60), st.integers(1, 20), st.booleans(), st.data())
@settings(max_examples=100, deadline=None)
def test_parts_read_as_one(
    tmp_path_factory: pytest.TempPathFactory, n: int, shard: int, held: bool, data: st.DataObject
) -> None:
    """Windows within a part, across two, and across many come out alike; so do slices."""
    files = written(tmp_path_factory.mktemp("parts"), *ladder(n, shard))
    tokens = (TokenStream.open if held else TokenStream.watch)(files, "<u2")
    assert len(tokens) == n
    length = data.draw(st.integers(1, n))
    starts = np.array(data.draw(st.lists(st.integers(0, n - length), min_size=1)))
    found = tokens.gather(starts, length)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, starts[:, None] + np.arange(length))
    first, last = sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))
    np.testing.assert_array_equal(tokens.slice(first, last), np.arange(first, last))
    assert tokens[n - 1] == n - 1


def test_the_ends(tmp_path: Path, opening: Opening) -> None:
    tokens = opening(written(tmp_path, *ladder(10, 4), np.array([], "<u2")), "<u2")
    assert tokens.slice(8, 99).tolist() == [8, 9]
    assert tokens.slice(99, 100).tolist() == []
    assert tokens.gather(np.array([], np.int64), 3).shape == (0, 3)
    for bad in (-1, 8):
        with pytest.raises(IndexError):
            tokens.gather(np.array([0, bad]), 3)
    with pytest.raises(IndexError):
        tokens[10]


def test_small_is_held_and_large_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the whole of it, not by the part, and by what memory there is."""
    files = written(tmp_path, *ladder(100, 50))
    held = TokenStream.open(files, "<u2")
    monkeypatch.setattr(stream_module, "HELD_BYTES", 199)
    watched = TokenStream.open(files, "<u2")
    monkeypatch.undo()
    monkeypatch.setattr(stream_module, "memory_available", lambda: 8 * 199)
    scarce = TokenStream.open(files, "<u2")
    files[0].path.write_bytes(bytes(100))
    assert held.slice(0, 100).tolist() == list(range(100)), "a snapshot"
    for stream in (watched, scarce):
        with pytest.raises(CorpusError):
            stream.slice(0, 100)


CHANGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: os.truncate(path, 10),
    "emptied": lambda path: path.write_bytes(b""),
    "grown": lambda path: path.open("ab").write(b"12"),
    "edited": lambda path: path.open("r+b").write(b"x"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_in_place_is_an_error_that_names_the_file(tmp_path: Path, change: str) -> None:
    """At the very next read, wherever it reads: nothing of the change is ever handed out."""
    files = written(tmp_path, *ladder(3000, 1000))
    tokens = TokenStream.watch(files, "<u2")
    CHANGES[change](files[1].path)
    for read in (lambda: tokens.gather(np.array([0, 1700]), 8), lambda: tokens.slice(1990, 2010)):
        with pytest.raises(CorpusError, match="changed while in use") as caught:
            read()
        assert str(files[1].path) in caught.value.title
        assert "prepared again" in caught.value.hint
    assert tokens.slice(0, 9).tolist() == list(range(9)), "what was not touched is still good"


def test_what_is_deleted_or_replaced_stays_as_it_was(tmp_path: Path) -> None:
    files = written(tmp_path, *ladder(200, 100))
    tokens = TokenStream.watch(files, "<u2")
    files[0].path.unlink()
    (tmp_path / "new").write_bytes(bytes(10))
    (tmp_path / "new").replace(files[1].path)
    assert tokens.slice(0, 200).tolist() == list(range(200))


@pytest.mark.parametrize("damage", ["short", "long", "gone", "folder", "pipe"])
def test_opening_says_what_is_wrong(tmp_path: Path, opening: Opening, damage: str) -> None:
    (file,) = written(tmp_path, np.arange(100, dtype="<u2"))
    if damage in ("short", "long"):
        os.truncate(file.path, 199 if damage == "short" else 201)
    else:
        file.path.unlink()
    if damage == "folder":
        file.path.mkdir()
    if damage == "pipe":
        os.mkfifo(file.path)
    with pytest.raises(CorpusError, match=str(file.path)):
        opening([file], "<u2")


def test_a_flipped_bit_is_found_where_all_is_read(tmp_path: Path) -> None:
    (file,) = written(tmp_path, np.arange(100, dtype="<u2"))
    content = bytearray(file.path.read_bytes())
    content[77] ^= 4
    file.path.write_bytes(content)
    with pytest.raises(CorpusError, match="content is not what was written"):
        TokenStream.open([file], "<u2")


def test_a_disk_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = written(tmp_path, np.arange(100, dtype="<u2"))
    tokens = TokenStream.watch([file], "<u2")

    def fail(*values: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(CorpusError, match="Input/output error"):
        tokens.slice(0, 10)


def test_short_reads_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a signal, or beyond 2 GB."""
    (file,) = written(tmp_path, np.arange(100, dtype="<u2"))
    tokens, pread = TokenStream.watch([file], "<u2"), os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, min(size, 7), at))
    assert tokens.slice(0, 100).tolist() == list(range(100))


def test_files_are_closed_with_the_stream(tmp_path: Path) -> None:
    files = written(tmp_path, *ladder(100, 10))
    tokens = TokenStream.watch(files, "<u2")

    def opened() -> int:
        files = psutil.Process().open_files()
        return sum(Path(file.path).parent == tmp_path for file in files)

    assert opened() == 10
    del tokens
    assert opened() == 0


@pytest.mark.parametrize(("held", "limit"), [(True, 1e-4), (False, 4e-4)])
def test_a_batch_costs_a_fraction_of_a_step(tmp_path: Path, held: bool, limit: float) -> None:
    """12×256: 0.24 ms in a loop of slices, a tenth of that as a gather, 0.08 ms from the disk."""
    files = written(tmp_path, np.arange(2_000_000, dtype="<u4").astype("<u2"))
    tokens = (TokenStream.open if held else TokenStream.watch)(files, "<u2")
    batches = Batches(Windows(tokens, 0, len(tokens), 256), 12, seed=1)
    seconds = []
    for _ in range(500):
        began = time.perf_counter()
        batches.next()
        seconds.append(time.perf_counter() - began)
    assert np.median(seconds) < limit


def test_memory_stays_flat_over_a_corpus_of_two_gigabytes(tmp_path: Path) -> None:
    """A sparse file: all of it read through, and at random; and one that is cut short kills
    nobody."""
    script = textwrap.dedent(
        """
        import os, resource, sys
        from pathlib import Path
        import numpy as np
        from engine.data import Batches, Windows
        from engine.errors import CorpusError
        from engine.stream import NumberFile, TokenStream

        paths = [Path(sys.argv[1], str(number)) for number in range(4)]
        for path in paths:
            path.touch()
            os.truncate(path, 512 << 20)
        tokens = TokenStream.open([NumberFile(path, 256 << 20, "") for path in paths], "<u2")
        batches = Batches(Windows(tokens, 0, len(tokens), 256), 12, seed=1)
        batches.next()
        tokens.slice(0, 1 << 20)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for start in range(0, len(tokens), len(tokens) // 64):
            tokens.slice(start, start + (1 << 20))
        for _ in range(2000):
            batches.next()
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
        for path in paths:
            os.truncate(path, 4096)
        try:
            batches.next()
        except CorpusError:
            print("told")
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    grown, told = done.stdout.split()
    assert int(grown) < 20, "MB of growth"
    assert told == "told"
