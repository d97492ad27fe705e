"""A folder as it was before a trial, and as it shall be again after it."""

from __future__ import annotations

import shutil
from pathlib import Path


class Sound:
    """Remembers every plain file and folder below `root`; `mend` brings all of it back."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
        self.folders = {path for path in root.rglob("*") if path.is_dir()}

    def mend(self) -> None:
        for path in sorted(self.root.rglob("*"), reverse=True):
            plain = path.is_file() and not path.is_symlink()
            strange = not plain and (path.is_symlink() or not path.is_dir())
            if strange or (plain and (path not in self.files or path.stat().st_nlink > 1)):
                path.unlink()
            elif path.is_dir() and path not in self.folders:
                shutil.rmtree(path)
        for folder in sorted(self.folders):
            if folder.is_file():
                folder.unlink()
            folder.mkdir(exist_ok=True)
        for path, data in self.files.items():
            if not path.is_file() or path.read_bytes() != data:
                path.write_bytes(data)
