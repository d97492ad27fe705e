"""A place outside the lab, with baits, that tells whether anybody was there.

Reading is seen by the kernel's own watch (inotify), whoever reads and however: a link that is
followed into this place is an event here, one that is refused is none.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
from pathlib import Path

_OPEN, _ACCESS = 0x20, 0x01
_CHANGES = 0x02 | 0x04 | 0x40 | 0x80 | 0x100 | 0x200  # modify, attrib, moves, create, delete
_libc = ctypes.CDLL(None, use_errno=True)


class Outside:
    """`root` holds `file`, `data.json`, a folder `folder` and a folder `run` that is a run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "folder").mkdir(parents=True, exist_ok=True)
        self.file, self.data = root / "file", root / "data.json"
        self.folder, self.new = root / "folder", root / "new"
        self.file.write_text("a bait\n")
        self.data.write_text("{}\n")
        (self.folder / "stop").write_text("a bait\n")
        (self.folder / "tokenizer.json").write_text("{}\n")
        self._before = self._content()
        self._watch = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._watch < 0:
            raise OSError(ctypes.get_errno(), "no inotify")
        self._names: dict[int, Path] = {}
        for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
            number = _libc.inotify_add_watch(
                self._watch, os.fsencode(folder), _OPEN | _ACCESS | _CHANGES
            )
            self._names[number] = folder
        self.seen()

    def _content(self) -> dict[Path, bytes | None]:
        """Everything below, by path: bytes of files, None for anything else."""
        return {
            path: path.read_bytes() if path.is_file() else None for path in self.root.rglob("*")
        }

    def seen(self) -> tuple[list[str], list[str]]:
        """What was read here and what was changed since the last call, in words."""
        reads, changes = [], []
        for folder, mask, name in self._events():
            place = str((folder / name).relative_to(self.root))
            if mask & _CHANGES:
                changes.append(f"changed: {place}")
            else:
                reads.append(f"read: {place}")
        now = self._content()
        if now != self._before:
            every = now | self._before
            differing = [path for path in every if now.get(path) != self._before.get(path)]
            changes += [f"differs: {path.name}" for path in differing]
        self._events()  # those of looking
        return sorted(set(reads)), sorted(set(changes))

    def mend(self) -> None:
        """The baits as they were, and nothing new; what that does here is not counted."""
        for path in self.root.rglob("*"):
            if path not in self._before:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for path, data in self._before.items():
            if data is not None and (not path.is_file() or path.read_bytes() != data):
                path.write_bytes(data)
        self._events()

    def _events(self) -> list[tuple[Path, int, str]]:
        found = []
        while True:
            try:
                data = os.read(self._watch, 1 << 16)
            except BlockingIOError:
                return found
            while data:
                number, mask, _, length = struct.unpack_from("iIII", data)
                name = data[16 : 16 + length].rstrip(b"\0").decode(errors="replace")
                found.append((self._names.get(number, self.root), mask, name))
                data = data[16 + length :]
