"""A file is the old one or the new one, and what must be new replaces nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from engine import atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "none"])
def test_what_must_be_new_is_written_whole_and_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """On a file system without hard links (FAT) too."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if not links:
        monkeypatch.setattr(os, "link", refused)
    atomic.write_bytes(tmp_path / "a", b"one", new=True)
    for planted in ("a", "link"):
        with pytest.raises(FileExistsError):
            atomic.write_bytes(tmp_path / planted, b"two", new=True)
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to("nowhere")
    assert (tmp_path / "a").read_bytes() == b"one"
    assert (tmp_path / "a").stat().st_nlink == 1
    assert names(tmp_path) == ["a", "link"]


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"one")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    for new in (False, True):
        with pytest.raises(OSError, match="No space"):
            atomic.write_bytes(tmp_path / ("b" if new else "a"), b"two", new=new)
    assert (tmp_path / "a").read_bytes() == b"one"
    assert names(tmp_path) == ["a"]
