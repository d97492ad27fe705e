"""What a file system may hold after the power went, given the operations before.

POSIX promises little: a file's bytes are there once the file was flushed, a name once its folder
was. Until then a name that was made, moved or removed may be so or not, whatever became of the
others, and a file may hold all, half or nothing of what was written, or zeros. A rename is one
change of its folder. Works on recorded operations, and knows nothing of what they are for.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaign.file_operations import Operation

Tree = dict[str, bytes | None]
"""A state: contents by path below the root; None for a folder."""

ROOT = 0


@dataclass(frozen=True)
class Change:
    """One name in one folder: made (or replaced) and, for a rename, another one removed."""

    at: int  # the number of its operation
    folder: int
    made: tuple[str, int] | None = None  # name, inode
    removed: str | None = None


@dataclass
class Recording:
    """Operations below `root`, as changes of inodes. Folders and files are numbered as they come.

    The tree is empty at first: what is there before the first operation must be made by it.
    """

    root: Path
    changes: list[Change] = field(default_factory=list)
    writes: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)  # by inode
    flushes: dict[int, list[int]] = field(default_factory=dict)  # by inode: operations
    folders: set[int] = field(default_factory=lambda: {ROOT})

    @classmethod
    def of(cls, root: Path, operations: Sequence[Operation]) -> Recording:
        made = cls(root)
        names: dict[tuple[int, str], int] = {}
        for at, operation in enumerate(operations):
            made._add(at, operation, names)
        return made

    def _add(self, at: int, operation: Operation, names: dict[tuple[int, str], int]) -> None:
        if operation.path == str(self.root):
            if operation.what == "fsync":
                self.flushes.setdefault(ROOT, []).append(at)
            return
        folder, name = self._place(operation.path, names)
        inode = names.get((folder, name))
        if operation.what == "mkdir" or (operation.what == "open" and inode is None):
            inode = 1 + len(self.folders) + len(self.writes)
            names[folder, name] = inode
            self.changes.append(Change(at, folder, made=(name, inode)))
            if operation.what == "mkdir":
                self.folders.add(inode)
            else:
                self.writes[inode] = []
        elif inode is None:
            return  # the operation found nothing
        elif operation.what == "write":
            self.writes[inode].append((at, operation.data))
        elif operation.what == "fsync":
            self.flushes.setdefault(inode, []).append(at)
        elif operation.what in ("unlink", "rmdir"):
            del names[folder, name]
            self.changes.append(Change(at, folder, removed=name))
        elif operation.what in ("rename", "replace"):
            other, new_name = self._place(operation.target, names)
            if other != folder:
                raise ValueError(f"a rename across folders is two changes: {operation}")
            names[folder, new_name] = names.pop((folder, name))
            self.changes.append(Change(at, folder, made=(new_name, inode), removed=name))

    def _place(self, path: str, names: dict[tuple[int, str], int]) -> tuple[int, str]:
        *above, name = Path(path).relative_to(self.root).parts
        folder = ROOT
        for part in above:
            folder = names[folder, part]
        return folder, name

    def states(self, end: int, most: int, rng: random.Random) -> Iterator[Tree]:
        """The trees that may be left when the power goes before operation `end`: all of them if
        they are at most `most`, else so many drawn at random."""
        done = [change for change in self.changes if change.at < end]
        certain = [self._flushed(change.folder, change.at, end) for change in done]
        open_changes = certain.count(False)
        contents = {inode: self._contents(inode, end) for inode in self.writes}
        uncertain = [inode for inode, choices in contents.items() if len(choices) > 1]
        total = 2**open_changes * math.prod(len(contents[inode]) for inode in uncertain)
        if total <= most:
            happened = itertools.product((True, False), repeat=open_changes)
            chosen = itertools.product(*(contents[inode] for inode in uncertain))
            draws = itertools.product(happened, chosen)
        else:
            draws = iter(
                [
                    (
                        tuple(rng.random() < 0.5 for _ in range(open_changes)),
                        tuple(rng.choice(contents[inode]) for inode in uncertain),
                    )
                    for _ in range(most)
                ]
            )
        for happened, chosen in draws:
            told = iter(happened)
            kept = [
                change for change, sure in zip(done, certain, strict=True) if sure or next(told)
            ]
            files = {inode: choices[0] for inode, choices in contents.items()}
            yield self._tree(kept, files | dict(zip(uncertain, chosen, strict=True)))

    def _flushed(self, inode: int, since: int, end: int) -> bool:
        return any(since < at < end for at in self.flushes.get(inode, ()))

    def _contents(self, inode: int, end: int) -> list[bytes]:
        """What a file may hold: what was flushed, and of the rest all, none, half or zeros."""
        sure, rest = b"", b""
        for at, data in self.writes[inode]:
            if at < end:
                if self._flushed(inode, at, end):
                    sure += data
                else:
                    rest += data
        forms = [sure + rest, sure, sure + rest[: len(rest) // 2], sure + bytes(len(rest))]
        return list(dict.fromkeys(forms))

    def _tree(self, changes: list[Change], files: dict[int, bytes]) -> Tree:
        entries: dict[int, dict[str, int]] = {}
        for change in changes:
            names = entries.setdefault(change.folder, {})
            if change.removed is not None:
                names.pop(change.removed, None)
            if change.made is not None:
                names[change.made[0]] = change.made[1]
        tree: Tree = {}

        def walk(folder: int, above: str) -> None:
            for name, inode in entries.get(folder, {}).items():
                path = f"{above}{name}"
                if inode in self.folders:
                    tree[path] = None
                    walk(inode, path + "/")
                else:
                    tree[path] = files[inode]

        walk(ROOT, "")
        return tree


def build(tree: Tree, root: Path) -> None:
    """Put the state on the disk, in an empty folder."""
    root.mkdir()
    for path, content in tree.items():
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)
