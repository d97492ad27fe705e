"""A disk of a few megabytes that can be filled: a real one where mounting is allowed."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tests.campaign.file_operations import Operation, Watching

PAGE = 4096


class Disk(Protocol):
    kind: str

    def fill(self, leave: int) -> None:
        """Leave about so many bytes free."""

    def empty(self) -> None:
        """Make room again."""


class Mounted:
    """A file system in memory: its writes fail as those of a full disk do."""

    kind = "a mounted tmpfs"

    def __init__(self, folder: Path) -> None:
        self._folder, self._filler = folder, folder / "filler"

    def fill(self, leave: int) -> None:
        free = shutil.disk_usage(self._folder).free
        with open(self._filler, "ab") as file:
            file.write(bytes(max(0, (free - leave) // PAGE) * PAGE))

    def empty(self) -> None:
        self._filler.unlink(missing_ok=True)


class Pretended:
    """Writes below a folder that fail while the disk is said to be full."""

    kind = "patched calls: nothing may be mounted here"

    def __init__(self) -> None:
        self.left = 1 << 60

    def fill(self, leave: int) -> None:
        self.left = leave

    def empty(self) -> None:
        self.left = 1 << 60

    def watch(self, operation: Operation, carry_out: Callable[..., Any]) -> Any:
        if operation.what == "write":
            if len(operation.data) > self.left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.left -= len(operation.data)
        return carry_out()


def mount(folder: Path, size: int, options: str = "") -> bool:
    """Mount an empty file system of `size` bytes at `folder`; False where that is not allowed."""
    wanted = ",".join(part for part in (f"size={size}", options) if part)
    command = ["mount", "-t", "tmpfs", "-o", wanted, "none", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Disk]:
    """A disk of `size` bytes at `folder`, which is made."""
    folder.mkdir()
    if mount(folder, size):
        try:
            yield Mounted(folder)
        finally:
            unmount(folder)
        return
    pretended = Pretended()
    with Watching(folder, pretended.watch):
        yield pretended
