"""The file operations of a piece of work, seen one by one: to fail one, to die at one, to list all.

Patches the functions of `os` that make, change, flush, name and remove files, for paths below one
folder; the operations of other threads and of other folders pass unseen. Knows nothing of saving.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Operation:
    """One call. `what`: the function's name in `os`; `flags` of an open; `target` of a rename."""

    what: str
    path: str
    data: bytes = b""
    target: str = ""
    flags: int = 0


Watcher = Callable[[Operation, Callable[..., Any]], Any]
"""Given an operation and what carries it out: does so, or raises, or does not come back. What
carries out a write takes the number of bytes to write, all by default."""

_WATCHED = (
    "open", "write", "fsync", "close", "mkdir", "rename", "replace", "unlink", "rmdir", "scandir",
    "listdir",
)  # fmt: skip


class Watching:
    """`with Watching(folder, watcher):` calls `watcher` for each operation below `folder`."""

    def __init__(self, folder: Path, watcher: Watcher) -> None:
        self._folder, self._watcher = str(folder), watcher
        self._real = {name: getattr(os, name) for name in _WATCHED}
        self._paths: dict[int, str] = {}
        self._inside = threading.local()

    def __enter__(self) -> Watching:
        for name in _WATCHED:
            setattr(os, name, getattr(self, f"_{name}"))
        return self

    def __exit__(self, *_: object) -> None:
        for name, function in self._real.items():
            setattr(os, name, function)

    def _path(self, given: Any, dir_fd: int | None = None) -> str:
        if isinstance(given, int):
            return self._paths.get(given, "")
        path = Path(os.fsdecode(given))
        return str(path if dir_fd is None else Path(self._paths.get(dir_fd, "")) / path)

    def _seen(self, operation: Operation, carry_out: Callable[[], Any]) -> Any:
        busy = getattr(self._inside, "busy", False)  # what the watcher itself does
        if busy or not operation.path.startswith(self._folder):
            return carry_out()
        self._inside.busy = True
        try:
            return self._watcher(operation, carry_out)
        finally:
            self._inside.busy = False

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        full = self._path(path, dir_fd)

        def carry_out() -> int:
            descriptor: int = self._real["open"](path, flags, mode, dir_fd=dir_fd)
            self._paths[descriptor] = full
            return descriptor

        return self._seen(Operation("open", full, flags=flags), carry_out)  # type: ignore[no-any-return]

    def _write(self, descriptor: int, data: Any) -> int:
        path = self._path(descriptor)
        seen = Operation("write", path, bytes(data) if path else b"")

        def carry_out(size: int | None = None) -> int:
            return self._real["write"](descriptor, data[:size])  # type: ignore[no-any-return]

        return self._seen(seen, carry_out)  # type: ignore[no-any-return]

    def _close(self, descriptor: int) -> None:
        path = self._path(descriptor)

        def carry_out() -> None:
            self._paths.pop(descriptor, None)
            self._real["close"](descriptor)

        self._seen(Operation("close", path), carry_out)

    def _fsync(self, descriptor: int) -> None:
        seen = Operation("fsync", self._path(descriptor))
        self._seen(seen, lambda: self._real["fsync"](descriptor))

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        seen = Operation("mkdir", self._path(path, dir_fd))
        self._seen(seen, lambda: self._real["mkdir"](path, mode, dir_fd=dir_fd))

    def _rename(self, source: Any, target: Any) -> None:
        seen = Operation("rename", self._path(source), target=self._path(target))
        self._seen(seen, lambda: self._real["rename"](source, target))

    def _replace(self, source: Any, target: Any) -> None:
        seen = Operation("replace", self._path(source), target=self._path(target))
        self._seen(seen, lambda: self._real["replace"](source, target))

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        seen = Operation("unlink", self._path(path, dir_fd))
        self._seen(seen, lambda: self._real["unlink"](path, dir_fd=dir_fd))

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        seen = Operation("rmdir", self._path(path, dir_fd))
        self._seen(seen, lambda: self._real["rmdir"](path, dir_fd=dir_fd))

    def _scandir(self, path: Any = ".") -> Any:
        seen = Operation("scandir", self._path(path))
        return self._seen(seen, lambda: self._real["scandir"](path))

    def _listdir(self, path: Any = ".") -> Any:
        return self._seen(
            Operation("listdir", self._path(path)), lambda: self._real["listdir"](path)
        )


@contextmanager
def unflushed() -> Iterator[None]:
    """Without waiting for the disk: where processes die and machines do not, nothing is lost."""
    real = os.fsync
    os.fsync = lambda descriptor: None
    try:
        yield
    finally:
        os.fsync = real
