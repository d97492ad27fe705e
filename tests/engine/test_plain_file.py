"""What is planted in a file's place neither leads out of the lab nor holds anybody up."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.metrics import read_metrics
from engine.plain_file import open_plain, open_to_write, read_plain
from engine.run_lock import RunLock
from engine.run_writer import Appender
from engine.status import Status, read_status, write_status

PLANTS: dict[str, Callable[[Path, Path], object]] = {
    "a link": lambda at, bait: at.symlink_to(bait),
    "a link to an endless device": lambda at, bait: at.symlink_to("/dev/zero"),
    "a pipe": lambda at, bait: os.mkfifo(at),
    "a folder": lambda at, bait: at.mkdir(),
}


@pytest.fixture
def bait(tmp_path: Path) -> Path:
    bait = tmp_path / "outside"
    bait.write_text('{"step": 1, "loss": 2.0, "state": "failed"}\n')
    return bait


@pytest.mark.parametrize("what", PLANTS)
def test_nothing_but_a_plain_file_is_read_or_written(tmp_path: Path, bait: Path, what: str) -> None:
    """A pipe would hold whoever opens it until somebody comes, which is never."""
    at = tmp_path / "at"
    PLANTS[what](at, bait)
    with pytest.raises(OSError, match=r"link|plain|directory|No such device"):
        open_plain(at)
    with pytest.raises(OSError, match=r"link|plain|directory|No such device"):
        open_to_write(at, os.O_WRONLY | os.O_APPEND)


@pytest.mark.parametrize("what", PLANTS)
def test_a_run_s_files_are_passed_over_when_something_else_is_there(
    tmp_path: Path, bait: Path, what: str
) -> None:
    PLANTS[what](tmp_path / "status.json", bait)
    PLANTS[what](tmp_path / "metrics.jsonl", bait)
    assert read_status(tmp_path) == Status()
    assert len(read_metrics(tmp_path)["step"]) == 0


def test_a_hard_link_is_not_written_through(tmp_path: Path, bait: Path) -> None:
    """It cannot be told from a file of the lab's own but by the number of its names."""
    before = bait.read_text()
    for name in ("run.lock", "metrics.jsonl"):
        os.link(bait, tmp_path / name)
    lines = Appender(tmp_path / "metrics.jsonl")
    lines.add("{}")
    with pytest.raises(OSError, match="hard link"):
        lines.flush()
    with pytest.raises(Exception, match="hard link"):
        RunLock(tmp_path).acquire()
    assert bait.read_text() == before


def test_a_link_under_a_temporary_name_is_replaced(tmp_path: Path, bait: Path) -> None:
    """The name can be guessed: it holds the process's number."""
    before = bait.read_text()
    run = tmp_path / "run"
    run.mkdir()
    for name in (f".status.json.{os.getpid()}.tmp", f".tmp-status.json-{os.getpid()}"):
        (run / name).symlink_to(bait)
    write_status(run, Status("failed"), durable=False)
    assert read_status(run).state == "failed"
    assert bait.read_text() == before


def test_a_person_s_link_is_followed(tmp_path: Path, bait: Path) -> None:
    at = tmp_path / "at"
    at.symlink_to(bait)
    assert read_plain(at, 1000, follow=True) == bait.read_bytes()


def test_what_is_too_large_or_cannot_be_named_is_an_os_error(tmp_path: Path, bait: Path) -> None:
    with pytest.raises(OSError, match="more than 5 bytes"):
        read_plain(bait, 5)
    with pytest.raises(OSError, match="null"):
        open_plain(tmp_path / "a\0b")


def test_a_file_that_is_made_is_its_owner_s_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        os.close(open_to_write(tmp_path / "new", os.O_WRONLY))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
