"""TOML that no person wrote is refused before it costs time or memory."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from engine.config import load_file
from engine.corpora.registry import read_registry
from engine.errors import ConfigError, CorpusError
from engine.toml import MAX_BYTES, read_toml

HOSTILE = {
    "a key of a million parts": "a." * 1_000_000 + "a = 1",
    "many keys of many parts": "".join(f"a{i}.{'a.' * 300}a = 1\n" for i in range(3_000)),
    "keys under a long header": f"[{'a.' * 3_000}a]\n"
    + "".join(f"a{i} = 1\n" for i in range(99_999)),
    "brackets": "a = " + "[" * 100_000,
    "braces": "a = " + "{a = " * 100_000,
    "a number of thousands of digits": "a = " + "9" * 5_000,
    "no text": "a = '\udcff'",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_are_refused_at_once(tmp_path: Path, what: str) -> None:
    """The standard library's reader takes an hour for the first of them."""
    path = tmp_path / "x.toml"
    path.write_text(HOSTILE[what], encoding="utf-8", errors="surrogateescape")
    began = time.process_time()
    with pytest.raises(ValueError, match=r"\w"):
        read_toml(path)
    with pytest.raises(ConfigError, match=r"x\.toml: not valid TOML"):
        load_file(path)
    with pytest.raises(CorpusError, match="not valid TOML"):
        read_registry(path)
    assert time.process_time() - began < 5


def test_a_file_larger_than_any_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ConfigError, match="more than"):
        load_file(path)


def test_long_texts_and_lists_of_people_are_read(tmp_path: Path) -> None:
    """A prompt may be a page, a corpus may name hundreds of files in one line."""
    path = tmp_path / "x.toml"
    prompt = "One sentence. " * 500
    files = [f"some/folder/chapter.{n}.txt" for n in range(300)]
    path.write_text(f"prompt = {prompt!r}\nfiles = {files!r}\n")
    assert read_toml(path) == {"prompt": prompt, "files": files}


@pytest.mark.parametrize("value", ["1" + "0" * 400, "0x" + "f" * 5_000, "-" + "9" * 300])
def test_a_number_that_fits_no_counter_is_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f"[train]\nmax_steps = {value}\n")
    with pytest.raises(ConfigError, match=r"train\.max_steps"):
        load_file(path)
