"""A lab: any directory that holds `configs/`, `corpus/` and `checkpoints/`.

Knows where things lie, and nothing of what is in them. What ships with the program (presets,
corpus registry, the ready-made run) is the fallback behind the lab's own files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InputError

KINDS = ("configs", "corpus", "checkpoints")


def builtin_dir(kind: str) -> Path:
    """Where the shipped `configs`, `corpus` or `checkpoints` lie: in the wheel, or the checkout."""
    package = Path(__file__).resolve().parent
    shipped = package / "_builtin" / kind
    return shipped if shipped.is_dir() else package.parent / kind


SHIPPED_RUN = "hello-python"
"""The ready-made run. In a checkout the lab's own runs land beside it."""


def is_shipped(run_path: Path) -> bool:
    """Whether this run came with the program, and is nobody's to delete or go on with."""
    place = builtin_dir("checkpoints").resolve()
    return run_path.name == SHIPPED_RUN and run_path.parent.resolve() == place


@dataclass(frozen=True)
class Lab:
    """Where this lab's files lie. Nothing is made on disk until something is written."""

    root: Path

    @classmethod
    def find(cls, explicit: str | Path | None = None) -> Lab:
        """The lab at `explicit`, else at `TUI_LAB_DIR`, else the working directory.

        Raises InputError when a directory that was named is not there.
        """
        named = explicit or os.environ.get("TUI_LAB_DIR")
        root = Path(named).expanduser() if named else Path.cwd()
        if not root.is_dir():
            raise InputError(f"lab '{root}' is not a directory", f"make it: tui-lab init {root}")
        return cls(root.resolve())

    @classmethod
    def init(cls, root: Path) -> Lab:
        """Make the three folders at `root` (and `root` itself); existing ones are left alone."""
        for kind in KINDS:
            try:
                (root / kind).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"cannot make '{root / kind}': {error.strerror}") from error
        return cls(root.resolve())

    @property
    def configs(self) -> Path:
        return self.root / "configs"

    @property
    def corpus(self) -> Path:
        return self.root / "corpus"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    def owns_run(self, run_path: Path) -> bool:
        """Whether this run is the lab's own, and not the shipped one."""
        here = run_path.parent.resolve() == self.checkpoints.resolve()
        return here and not is_shipped(run_path)

    def places(self, kind: str) -> list[Path]:
        """The directories of `kind` to look in: the lab's own first, then the shipped one."""
        own, shipped = self.root / kind, builtin_dir(kind)
        return [own] if own.resolve() == shipped.resolve() else [own, shipped]
